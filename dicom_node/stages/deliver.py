"""DELIVER: send an exam's report objects to one destination."""

from __future__ import annotations

from collections.abc import Callable, Container

from dicom_node.domain.delivery import (
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
    and one that it refuses does not hold up the others.

    ``kinds``: which objects a destination gets.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        sender: ReportSender,
        clock: Clock,
        kinds: Callable[[str], Container[ReportKind]],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._kinds = kinds
        self._sender = sender

    def __call__(self, job: Job) -> None:
        """Send what is missing. Raises ``Transient`` or ``Permanent`` by the answer's status."""
        stored = self._ledger.delivered(job.exam_id, job.destination)
        kinds = self._kinds(job.destination)
        refusals = []
        for report in self._ledger.report_objects(job.exam_id):
            if report.kind in kinds and report.sop_instance_uid not in stored:
                try:
                    self._send(job, report)
                except Permanent as refusal:
                    refusals.append(refusal)
        if refusals:
            raise refusals[0]
        self._ledger.complete_deliver(job)
        received_at = self._ledger.exam(job.exam_id).instance.received_at
        exam_delivered((self._clock.now() - received_at).total_seconds())

    def _send(self, job: Job, report: ReportObject) -> None:
        status = self._sender.send(job.destination, report)
        verdict = verdict_for_status(status)
        self._ledger.record_delivery(
            job,
            Delivery(
                sop_instance_uid=report.sop_instance_uid,
                destination=job.destination,
                status=status,
                verdict=verdict,
            ),
        )
        facts = {"exam_id": job.exam_id, "job_id": job.job_id, "destination": job.destination}
        stored = verdict is Verdict.STORED
        log("delivery_stored" if stored else "delivery_failed", **facts, status=status)
        delivery_answered(job.destination, verdict)
        if verdict is Verdict.TRY_AGAIN:
            raise Transient(
                Fault.DESTINATION_UNAVAILABLE,
                f"destination {job.destination} answered status {status:04X}: it is tried again",
            )
        if verdict is Verdict.REFUSED:
            raise Permanent(
                Fault.DESTINATION_REFUSED,
                f"destination {job.destination} refused the {report.kind} object with status "
                f"{status:04X}: ask its administrator, then `dicom-node job retry {job.job_id}`",
            )
