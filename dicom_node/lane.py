"""The way to one destination: deliveries, and a circuit breaker in front of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from dicom_node.domain.breaker import Breaker
from dicom_node.domain.errors import Fault, NodeError
from dicom_node.domain.job import Job
from dicom_node.logs import log
from dicom_node.metrics import destination_silent
from dicom_node.ports import Ledger


class Lane:
    """Runs the deliveries of one destination, and lets none go while it is silent.

    ``probe``: whether the destination answers. When it does again, what waited is due at once.
    """

    def __init__(
        self,
        destination: str,
        *,
        ledger: Ledger,
        deliver: Callable[[Job], None],
        probe: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._deliver = deliver
        self._probe = probe
        self._now = now
        self._breaker = Breaker()
        destination_silent(destination, silent=False)

    def __call__(self, job: Job) -> None:
        """Run one job(DELIVER). Raises what it raises."""
        try:
            self._deliver(job)
        except NodeError as error:
            self._note(error.fault)
            raise
        self._breaker.answered()

    @property
    def is_silent(self) -> bool:
        """Whether the destination is only probed."""
        return self._breaker.is_open

    def _note(self, fault: Fault) -> None:
        if fault in {Fault.DESTINATION_BUSY, Fault.DESTINATION_REFUSED}:
            self._breaker.answered()
        elif fault is Fault.DESTINATION_UNAVAILABLE and self._breaker.unanswered(self._now()):
            log("destination_silent", destination=self._destination)
            destination_silent(self._destination, silent=True)

    def may_send(self) -> bool:
        """Whether deliveries may go out; asks the destination when that is due. Raises
        ``Transient`` (STORAGE_UNAVAILABLE); the destination is then asked again."""
        if not self._breaker.is_open:
            return True
        if not self._breaker.probe_due(self._now()):
            return False
        if not self._probe():
            self._breaker.unanswered(self._now())
            return False
        hurried = self._ledger.hurry(self._destination)
        self._breaker.answered()
        log("destination_returned", destination=self._destination, count=hurried)
        destination_silent(self._destination, silent=False)
        return True
