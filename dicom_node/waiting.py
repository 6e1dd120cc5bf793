"""Associations that wait until something happens, around pynetdicom's private parts.

pynetdicom looks at each association every millisecond, twice: in the thread that reads the network
and in the one that handles messages. Here both wait. With any version but :data:`VERSION` nothing
of this is used (ADR 26 and 30).
"""

from __future__ import annotations

import os
import queue
import select
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pynetdicom
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

VERSION = "3.0.4"
"""Of pynetdicom: the one whose private parts these are."""
_IDLE, _ENDING = "Sta1", "Sta13"
"""States of PS3.8 9.2: no connection; it is about to be closed."""


def is_usable() -> bool:
    """Whether the installed pynetdicom is the one that this module was written for."""
    return bool(pynetdicom.__version__ == VERSION)


def attach(association: Association, reader: WaitingReader) -> None:
    """Have an association whose threads have not begun wait, with ``reader`` at its connection."""
    reader.artim_timer = association.dul.artim_timer
    reader._idle_timer = association.dul._idle_timer
    association.dul = reader
    turn = Turn(association, reader)
    reader.ended = turn.wake
    reader.to_provider_queue = _Told(reader.wake)
    reader.to_user_queue = _Told(turn.wake)
    association.dimse.msg_queue = _Told(turn.wake, taken=reader.wake)
    association._reactor_checkpoint = turn  # type: ignore[assignment]


class _Told(queue.Queue[Any]):
    """A queue that tells when something was put into it, or taken from it."""

    def __init__(self, put: Callable[[], None], taken: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._tell_put, self._tell_taken = put, taken

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell_put()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        self._tell_taken()
        return item


class Turn:
    """Stands for the event at which the association's thread waits in each turn of its loop: lets
    it through when there is something to do."""

    def __init__(self, association: Association, reader: WaitingReader) -> None:
        self._association, self._reader = association, reader
        self._condition = threading.Condition()
        self._open = True

    def set(self) -> None:
        """Let the thread go on."""
        with self._condition:
            self._open = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Stop the thread: another one uses its association."""
        with self._condition:
            self._open = False

    def wake(self) -> None:
        """Something may have happened."""
        with self._condition:
            self._condition.notify_all()

    def wait(self) -> None:
        """Until the thread may go on and has something to do."""
        idle = self._reader._idle_timer
        with self._condition:
            while not (self._open and self._has_work()):
                self._condition.wait(max(idle.remaining, 0.1))

    def _has_work(self) -> bool:
        association, reader = self._association, self._reader
        return bool(
            association._kill
            or association.dimse.msg_queue.queue
            or reader.to_user_queue.queue
            or reader.idle_timer_expired()
            or reader.has_ended
        )


class WaitingReader(DULServiceProvider):
    """pynetdicom's reader of one connection, which waits instead of looking again and again."""

    socket: AssociationSocket
    """Set before the thread begins."""

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        self.ended: Callable[[], None] = lambda: None
        self.has_ended = False
        self._run_loop_delay = 0  # it has waited already
        self._bell = -1
        """An eventfd while the thread runs."""
        self._bell_lock = threading.Lock()

    def start(self) -> None:
        """Begin. Raises ``OSError`` where no descriptor is left: pynetdicom would wait for ever for
        a thread that could not begin."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            super().start()
        except RuntimeError:  # no thread is left
            self._silence()
            raise

    def run(self) -> None:
        """Until the connection has ended."""
        try:
            super().run()
        except BaseException:
            self.socket.close()  # the peer need not wait for nobody
            raise
        finally:
            self._silence()
            self.has_ended = True
            self.ended()

    def _silence(self) -> None:
        with self._bell_lock:  # its number may soon be that of something else
            os.close(self._bell)
            self._bell = -1

    def wake(self) -> None:
        """Something may have happened beside the network."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def kill_dul(self) -> None:
        """End soon."""
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """As pynetdicom's, which takes for granted that the thread looks by itself."""
        if self.state_machine.current_state == _IDLE:
            self.kill_dul()
        return super().stop_dul()

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == _ENDING:
            return super()._is_transport_event()
        if self.event_queue.queue or self._kill_thread or not self._has_data():
            return False
        self._read_pdu_data()
        return True

    def _has_data(self) -> bool:
        """Wait for data, for a call of :meth:`wake` or for the time that is up."""
        connection = self.socket.socket
        poll, reads = select.poll(), connection is not None and self._may_read()
        if connection is not None and reads:
            if self._holds_data():
                return True
            poll.register(connection, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(self._patience_ms())]
        if self._bell in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        return reads and any(descriptor != self._bell for descriptor in ready)

    def _patience_ms(self) -> float | None:
        timer = self.artim_timer
        runs = timer._start_time is not None and timer._end_time is None
        return max(timer.remaining, 0) * 1000 + 1 if runs and timer.timeout is not None else None

    def _may_read(self) -> bool:
        """Whether what comes from the network may be read now."""
        return self.socket._is_connected

    def _holds_data(self) -> bool:
        """Whether there is something to read of which `poll` knows nothing."""
        connection = self.socket.socket
        return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
