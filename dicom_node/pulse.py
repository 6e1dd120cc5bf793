"""The sign of life of a process: as long as its work goes on, it beats once a second.

A process that is killed ends, and the supervisor sees that. One that hangs does not: it is stopped,
or a library never returns. Its beats go to an eventfd (eventfd(2)) that the supervisor made and
reads: no file, so that a full or read-only disk silences nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_BEAT_SECONDS = 1.0
_COUNTED_SECONDS = 1.0
"""A look that comes later than this after the one before counts as this much: whoever looks was
itself stopped, and so perhaps was everybody."""


class Heart:
    """Beats from a thread of its own for the process that holds ``descriptor``; -1: nobody listens.

    Until something is watched, it beats: a model that loads is honest work.
    """

    def __init__(self, descriptor: int, *, every_seconds: float = _BEAT_SECONDS) -> None:
        self._descriptor = descriptor
        self._every_seconds = every_seconds
        self._watched: list[Callable[[], bool]] = []
        if descriptor >= 0:
            threading.Thread(target=self._run, name="heart", daemon=True).start()

    def watch(self, goes_on: Callable[[], bool]) -> None:
        """Be silent from when ``goes_on`` says no."""
        self._watched.append(goes_on)

    def _run(self) -> None:
        while True:
            if all(goes_on() for goes_on in self._watched):
                os.eventfd_write(self._descriptor, 1)
            time.sleep(self._every_seconds)


class Pulse:
    """The supervisor's end: how long a process has been silent, in time that the supervisor itself
    was running."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """For the process; it is inherited, also by the next one of that name."""
        self._looked = time.monotonic()
        self.silent_seconds = 0.0
        """As of the last look."""

    def reset(self) -> None:
        """A new process begins: what the one before left does not count."""
        self.look()
        self.silent_seconds = 0.0

    def look(self) -> None:
        """Take the beats since the last look."""
        now = time.monotonic()
        self.silent_seconds += min(now - self._looked, _COUNTED_SECONDS)
        self._looked = now
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return
        self.silent_seconds = 0.0
