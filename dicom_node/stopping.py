"""When a process is asked to stop."""

from __future__ import annotations

import os
import select
import signal
import threading


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


def _wake(writer: int) -> None:
    try:
        os.write(writer, b".")
    except BlockingIOError:
        return  # it was asked to stop many times before
