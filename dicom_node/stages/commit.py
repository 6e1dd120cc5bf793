"""What the node answers who asks it to commit to objects (PS3.4 Annex J)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from dicom_node.domain.commitment import (
    CommitmentResult,
    FailureReason,
    Promise,
    Reference,
)
from dicom_node.domain.errors import NodeError
from dicom_node.domain.retry import backoff_seconds
from dicom_node.logs import log
from dicom_node.ports import Clock, Holding, Promises, Spool

_MAX_ATTEMPTS = 20
"""Some hours."""


class Commit:
    """Answers requests for commitment by what is in the spool now, hashed again."""

    def __init__(self, *, promises: Promises, spool: Spool, clock: Clock) -> None:
        self._promises = promises
        self._spool = spool
        self._clock = clock

    def result(self, promise: Promise) -> CommitmentResult:
        """What the node keeps of what the request names, and why not the rest."""
        held: dict[str, list[Holding]] = {}
        for holding in self._promises.holdings(promise):
            held.setdefault(holding.reference.sop_instance_uid, []).append(holding)
        kept, failed = [], []
        for reference in promise.request.references:
            reason = self._objection(reference, held.get(reference.sop_instance_uid, []))
            if reason is None:
                kept.append(reference)
            else:
                failed.append((reference, int(reason)))
        return CommitmentResult(
            transaction_uid=promise.request.transaction_uid,
            kept=tuple(kept),
            failed=tuple(failed),
        )

    def return_due(
        self, send: Callable[[str, CommitmentResult], None], ae_titles: Sequence[str]
    ) -> None:
        """Send the results that are due to these requesters. ``send``: AE title and result; raises
        ``NodeError`` when the requester does not take it."""
        silent = set[str]()
        for promise in self._promises.open(ae_titles, due=True):
            if promise.ae_title in silent:
                continue  # asked again in the next run
            result = self.result(promise)
            try:
                send(promise.ae_title, result)
            except NodeError as error:
                silent.add(promise.ae_title)
                self._not_told(promise, error)
            else:
                self.told(promise, result)

    def told(self, promise: Promise, result: CommitmentResult) -> None:
        """The requester has the result."""
        self._promises.answered(promise)
        log("commitment_told", count=len(result.kept), failed=len(result.failed))

    def _not_told(self, promise: Promise, error: NodeError) -> None:
        """The requester did not take the result: again later, for some hours."""
        delay = timedelta(seconds=backoff_seconds(promise.attempt + 1, self._clock.fraction()))
        again = promise.attempt + 1 < _MAX_ATTEMPTS
        self._promises.failed(promise, run_after=self._clock.now() + delay if again else None)
        log("commitment_not_told", attempt=promise.attempt + 1, fault=error.fault, error=error)

    def _objection(self, reference: Reference, held: list[Holding]) -> FailureReason | None:
        """The oldest holding is what the sender's success stands for."""
        if not held:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        if held[0].reference.sop_class_uid != reference.sop_class_uid:
            return FailureReason.CLASS_INSTANCE_CONFLICT
        try:
            for holding in held:
                self._spool.verify(holding.content_sha256)
        except NodeError:
            return FailureReason.PROCESSING_FAILURE
        return None
