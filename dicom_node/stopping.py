"""When a process is asked to stop."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

from dicom_node.logs import log

_ORPHAN_SECONDS = 3.0
"""Nobody starts again what ends, and the next supervisor waits for this data folder: what is not
finished by then is sent, or done, again."""


def stop_event(*numbers: signal.Signals, lifeline: int | None = None) -> threading.Event:
    """An event that one of the signals sets, or the end of the pipe ``lifeline``.

    A signal handler runs inside whatever the main thread does, which may hold the event's lock: it
    only writes to a pipe, and a thread sets the event.
    """
    event = threading.Event()
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in numbers:
        signal.signal(number, lambda *_: _wake(writer))
    watched = [reader] if lifeline is None else [reader, lifeline]

    def watch() -> None:
        poll = select.poll()
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        poll.poll()
        event.set()

    threading.Thread(target=watch, daemon=True, name="stopping").start()
    return event


def end_as_orphan(lifeline: int) -> None:
    """Once the supervisor is gone this process has a short time left, whatever it does."""
    orphaned = stop_event(lifeline=lifeline)

    def end() -> None:
        orphaned.wait()
        time.sleep(_ORPHAN_SECONDS)
        log("process_orphaned")
        os._exit(1)

    threading.Thread(target=end, daemon=True, name="orphan").start()


def _wake(writer: int) -> None:
    try:
        os.write(writer, b".")
    except BlockingIOError:
        return  # it was asked to stop many times before
