"""A bell between the node's processes: an eventfd that the supervisor makes and children share."""

from __future__ import annotations

import os
import select


class EventBell:
    """Wakes every waiter, across processes, through an inherited descriptor."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.descriptor = descriptor

    def ring(self) -> None:
        """Wake the waiters, or the next one to wait."""
        os.eventfd_write(self.descriptor, 1)

    def wait(self, seconds: float) -> None:
        """Return after a ring or after ``seconds``."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        if poll.poll(max(0.0, seconds) * 1000):
            try:
                os.eventfd_read(self.descriptor)
            except BlockingIOError:
                return  # another waiter reset it
