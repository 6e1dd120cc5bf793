"""A line between two ends of TCP that can be slow, or swallow everything."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Line:
    """What arrives at :attr:`port` goes on to another port of this machine, and back."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay_seconds = 0.0
        """For whatever is passed on at once, in each direction."""
        self.goes_through = threading.Event()
        """Cleared: connections are accepted, and nothing is passed on."""
        self.goes_through.set()
        self.holds_after: int | None = None
        """It stops going through by itself after so many bytes."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No new connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._to_port)) as far:
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                self._count(len(piece))
                self.goes_through.wait()
                time.sleep(self.delay_seconds)
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _count(self, size: int) -> None:
        if self.holds_after is not None:
            self.holds_after -= size
            if self.holds_after <= 0:
                self.goes_through.clear()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line for the time of a test."""
    line = Line(port)
    try:
        yield line
    finally:
        line.goes_through.set()
        line.close()
