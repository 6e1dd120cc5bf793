"""DELIVER: send an exam's report objects to one destination."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

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
from dicom_node.logs import log
from dicom_node.metrics import delivery_answered, exam_delivered
from dicom_node.ports import Clock, Ledger, ReportSender


class Deliver:
    """Runs one job(DELIVER); objects that the destination has already are not sent again,
    and one that it refuses does not hold up the others. One whose SOP classes it does not take may
    stay away as long as another one arrives.

    ``kinds``: which objects a destination gets; ``proof``: what it is asked for afterwards.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sender: ReportSender,
        clock: Clock,
        kinds: Callable[[str], Container[ReportKind]],
        proof: Callable[[str], Proof],
    ) -> None:
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
        refusals, arrived = [], any(r.sop_instance_uid in stored for r in wanted)
        for report in wanted:
            if report.sop_instance_uid not in stored:
                try:
                    arrived |= self._send(job, report, stored)
                except Permanent as refusal:
                    refusals.append(refusal)
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

    def _send(self, job: Job, report: ReportObject, stored: Mapping[str, Answer]) -> bool:
        """Whether the destination has the object now."""
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
        return verdict is Verdict.STORED


def _log(job: Job, verdict: Verdict, status: int) -> None:
    facts = {"exam_id": job.exam_id, "job_id": job.job_id, "destination": job.destination}
    if verdict is Verdict.STORED:
        log("delivery_stored", **facts, status=status)
    elif verdict is Verdict.NOT_TAKEN:
        log("delivery_not_taken", **facts, status=status)
    else:
        log("delivery_failed", **facts, status=status)
