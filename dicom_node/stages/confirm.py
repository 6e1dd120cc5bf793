"""CONFIRM: a delivery is closed when its destination proves that it keeps the reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import uuid4

from dicom_node.domain.commitment import ASK_AGAIN, MAX_LOSSES, Proof, SentObject
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import Job
from dicom_node.logs import log
from dicom_node.metrics import report_lost
from dicom_node.ports import Clock, Commitments, DeliveryVerifier

_SOON_ATTEMPTS = 2


class Confirm:
    """Runs one job(CONFIRM). What its destination has lost is delivered again, three times at most.

    ``proof``: what each destination is asked for.
    """

    def __init__(
        self,
        *,
        commitments: Commitments,
        verifier: DeliveryVerifier,
        clock: Clock,
        proof: Callable[[str], Proof],
    ) -> None:
        self._commitments = commitments
        self._verifier = verifier
        self._clock = clock
        self._proof = proof

    def __call__(self, job: Job) -> None:
        """Ask, and settle what is known. Raises ``Transient`` (COMMITMENT_PENDING) while it is
        not, ``Permanent`` (REPORT_NOT_KEPT) for a report that was lost again and again."""
        proof = self._proof(job.destination)
        sent = () if proof is Proof.STATUS else self._commitments.unproven(job)
        if not all(item.lost for item in sent) and self._may_ask(job):
            self._ask(job, proof, sent)
            sent = self._commitments.unproven(job)
        if sent:
            self._settle(job, sent)
            return
        self._commitments.complete(job)
        log("delivery_confirmed", **_facts(job), proof=proof)

    def _may_ask(self, job: Job) -> bool:
        """Not while an earlier request may still be answered."""
        asked_at = self._commitments.asked_at(job)
        return asked_at is None or self._clock.now() - asked_at >= ASK_AGAIN

    def _ask(self, job: Job, proof: Proof, sent: Sequence[SentObject]) -> None:
        transaction_uid = f"2.25.{uuid4().int}"  # PS3.5 B.2
        if proof is Proof.COMMITMENT:
            self._commitments.ask(job, transaction_uid)
        try:
            found = self._verifier.verify(job.destination, sent, transaction_uid=transaction_uid)
        except Permanent:
            self._commitments.withdraw(job, transaction_uid)
            raise
        if found:
            self._commitments.record(job, found)

    def _again_at(self, job: Job) -> datetime | None:
        """A result makes the job due by itself, but one that comes in this moment would not: so the
        first looks follow soon."""
        asked_at = self._commitments.asked_at(job)
        return asked_at + ASK_AGAIN if asked_at and job.attempt > _SOON_ATTEMPTS else None

    def _settle(self, job: Job, sent: Sequence[SentObject]) -> None:
        if not all(item.lost for item in sent):
            raise Transient(
                Fault.COMMITMENT_PENDING,
                f"destination {job.destination} has not yet said that it keeps the report: "
                "it is asked again",
                again_at=self._again_at(job),
            )
        if any(item.losses >= MAX_LOSSES for item in sent):
            raise Permanent(
                Fault.REPORT_NOT_KEPT,
                f"destination {job.destination} answered success {MAX_LOSSES + 1} times and does "
                "not keep the report: ask its administrator, then "
                f"`dicom-node job retry {job.job_id}`",
            )
        self._commitments.send_again(job, sent)
        report_lost(job.destination)
        log("delivery_lost", **_facts(job), count=len(sent))


def _facts(job: Job) -> dict[str, object]:
    return {"exam_id": job.exam_id, "job_id": job.job_id, "destination": job.destination}
