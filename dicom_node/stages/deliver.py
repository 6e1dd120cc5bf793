"""DELIVER: send an exam's report objects to one destination."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

from dicom_node.domain.commitment import Proof
from dicom_node.domain.delivery import (
    DRAWN,
    Answer,
    Delivery,
    ReportKind,
    ReportObject,
    Verdict,
    verdict_for_status,
)
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import Job
from dicom_node.domain.retry import MAX_CRASHES
from dicom_node.logs import log
from dicom_node.metrics import delivery_answered, exam_delivered
from dicom_node.ports import Clock, Ledger, ReportSender


class Transferred(Protocol):
    """Tells the audit trail what went to a destination. It raises nothing."""

    def __call__(
        self, destination: str, report: ReportObject, sop_classes: Sequence[str], *, refused: bool
    ) -> None:
        """``report``: one of the objects; ``sop_classes``: as what each of them was sent."""


class Deliver:
    """Runs one job(DELIVER); objects that the destination has already are not sent again,
    and one that it refuses does not hold up the others. One whose SOP classes it does not take may
    stay away as long as another one arrives.

    ``kinds``: which objects a destination gets; ``proof``: what it is asked for afterwards.
    ``transferred`` is called at the end of every run that sent something: for what was stored, and
    for what was refused.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sender: ReportSender,
        clock: Clock,
        kinds: Callable[[str], Container[ReportKind]],
        proof: Callable[[str], Proof],
        transferred: Transferred,
    ) -> None:
        self._transferred = transferred
        self._ledger = ledger
        self._clock = clock
        self._kinds = kinds
        self._proof = proof
        self._sender = sender

    def __call__(self, job: Job) -> None:
        """Send what is missing. Raises ``Transient`` or ``Permanent`` by the answer's status."""
        stored = self._ledger.delivered(job.exam_id, job.destination)
        kinds = self._kinds(job.destination)
        wanted = [r for r in self._ledger.report_objects(job.exam_id) if r.kind in kinds]
        refusals, arrived = self._send_missing(job, wanted, stored)
        if refusals:
            raise refusals[0]
        if not wanted and all(kind not in kinds for kind in set(ReportKind) - DRAWN):
            raise Permanent(
                Fault.PICTURE_NOT_DRAWN,
                f"destination {job.destination} takes pictures only, and this report has none: "
                f"`dicom-node exam reassess {job.exam_id}` draws it again",
            )
        if wanted and not arrived:
            raise Permanent(
                Fault.DESTINATION_REFUSED,
                f"destination {job.destination} stores none of the SOP classes of this report: "
                f"have one enabled there (`dicom-node echo {job.destination}` lists them), then "
                f"`dicom-node job retry {job.job_id}`",
            )
        confirm = self._proof(job.destination) is not Proof.STATUS
        self._ledger.complete_deliver(job, confirm=confirm)
        if not stored.keys() - {r.sop_instance_uid for r in wanted}:  # else it is a revision
            received_at = self._ledger.exam(job.exam_id).instance.received_at
            exam_delivered((self._clock.now() - received_at).total_seconds())

    def _send_missing(
        self, job: Job, wanted: Sequence[ReportObject], stored: Mapping[str, Answer]
    ) -> tuple[list[Permanent], bool]:
        """What was refused, and whether the destination has any of the objects now."""
        there = [stored[r.sop_instance_uid] for r in wanted if r.sop_instance_uid in stored]
        refusals = list[Permanent]()
        # After a crash, also one that an operator's retry forgot, nobody knows whether the trail
        # holds what was sent before: it is told again.
        in_doubt = job.crashes > 0 or job.attempt > MAX_CRASHES
        told: dict[Verdict, list[Answer]] = {Verdict.STORED: list(there) if in_doubt else []}
        try:
            for report in wanted:
                if report.sop_instance_uid not in stored:
                    try:
                        self._send(job, report, stored, told)
                    except Permanent as refusal:
                        refusals.append(refusal)
        finally:
            self._tell(job, wanted, told)
        return refusals, bool(there or told[Verdict.STORED])

    def _tell(
        self, job: Job, wanted: Sequence[ReportObject], told: Mapping[Verdict, list[Answer]]
    ) -> None:
        for verdict in (Verdict.STORED, Verdict.REFUSED):
            if sent := [answer.sent_sop_class_uid for answer in told.get(verdict, [])]:
                refused = verdict is Verdict.REFUSED
                self._transferred(job.destination, wanted[0], sent, refused=refused)

    def _send(
        self,
        job: Job,
        report: ReportObject,
        stored: Mapping[str, Answer],
        told: dict[Verdict, list[Answer]],
    ) -> None:
        """Send one object and note in ``told`` what became of it."""
        answer = self._sender.send(job.destination, report, stored)
        status = answer.status
        verdict = verdict_for_status(status)
        self._ledger.record_delivery(
            job,
            Delivery(
                sop_instance_uid=report.sop_instance_uid,
                destination=job.destination,
                answer=answer,
                verdict=verdict,
            ),
        )
        told.setdefault(verdict, []).append(answer)
        _log(job, verdict, status)
        delivery_answered(job.destination, verdict)
        if verdict is Verdict.TRY_AGAIN:
            raise Transient(
                Fault.DESTINATION_BUSY,
                f"destination {job.destination} answered status {status:04X}: it is tried again",
            )
        if verdict is Verdict.REFUSED:
            raise Permanent(
                Fault.DESTINATION_REFUSED,
                f"destination {job.destination} refused the {report.kind} object with status "
                f"{status:04X}: ask its administrator, then `dicom-node job retry {job.job_id}`",
            )


def _log(job: Job, verdict: Verdict, status: int) -> None:
    facts = {"exam_id": job.exam_id, "job_id": job.job_id, "destination": job.destination}
    if verdict is Verdict.STORED:
        log("delivery_stored", **facts, status=status)
    elif verdict is Verdict.NOT_TAKEN:
        log("delivery_not_taken", **facts, status=status)
    else:
        log("delivery_failed", **facts, status=status)
