"""Forward: tell the centre what it may know, in batches. Not a stage of a job: an exam is told as
often as its facts change, and no exam waits for the centre."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_node.domain.assessment import ReferenceTable
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.record import ExamRecord, ResultRecord
from dicom_node.logs import log
from dicom_node.ports import CentralArchive, ExamPseudonyms, Forwardable, Outbox
from dicom_node.stages.report import assessment_of

BATCH = 200
"""Exams in one transaction of the centre: what is in memory at once, however long it was away."""


class Forward:
    """Sends what waits. The centre counts the node's batches in the same transaction, so that a
    centre that was restored, or a replica that lacks the last ones, gets them again."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        centre: CentralArchive,
        pseudonyms: ExamPseudonyms,
        reference: ReferenceTable,
        region: str,
        node: str,
    ) -> None:
        self._outbox = outbox
        self._centre = centre
        self._pseudonyms = pseudonyms
        self._reference = reference
        self._region = region
        self._node = node

    def __call__(self) -> int:
        """Send everything that waits; return how many exams. Raises what the centre raises."""
        batch = self._agree()
        sent = 0
        while waiting := self._outbox.waiting(BATCH):
            batch += 1
            sent += self._send(waiting, batch)
        if sent:
            log("exams_forwarded", count=sent)
        return sent

    def record(self, item: Forwardable) -> ExamRecord:
        """What the centre gets of an exam."""
        names = self._pseudonyms.of(item.exam, _patient(item))
        age = item.eligibility.chronological_age_months if item.eligibility else None
        return ExamRecord(
            region=self._region,
            node=self._node,
            institution_id=item.exam.instance.institution_id,
            exam_pseudonym=names.exam_pseudonym,
            patient_pseudonym=names.patient_pseudonym,
            key_id=names.key_id,
            received_at=item.exam.instance.received_at,
            chronological_age_months=None if age is None else int(age),
            sex=item.eligibility.sex if item.eligibility else None,
            outcome=item.exam.outcome,
            reason=item.exam.reason,
            result=self._result(item),
            object_kinds=item.object_kinds,
            times=item.times,
            deliveries=item.deliveries,
        )

    def _agree(self) -> int:
        """The number of the last batch that both sides know of."""
        ours, theirs = self._outbox.last_batch(), self._centre.last_batch()
        if theirs < ours:
            log("centre_lost_batches", count=self._outbox.forget_after(theirs))
        return max(ours, theirs)

    def _send(self, waiting: Sequence[Forwardable], batch: int) -> int:
        try:
            self._centre.store([self.record(item) for item in waiting], batch=batch)
        except Permanent as error:
            if error.fault is not Fault.RECORD_REFUSED:
                raise
            if len(waiting) == 1:
                self._outbox.refused(waiting[0].exam.exam_id, error.fault)
                log("exam_not_forwarded", exam_id=waiting[0].exam.exam_id, error=error)
                return 0
            return sum(self._send([item], batch) for item in waiting)
        changes = {item.exam.exam_id: item.change for item in waiting}
        self._outbox.forwarded(changes, batch=batch)
        return len(waiting)

    def _result(self, item: Forwardable) -> ResultRecord | None:
        if item.prediction is None or item.eligibility is None:
            return None
        prediction = item.prediction
        assessment = assessment_of(item.eligibility, prediction, self._reference)
        return ResultRecord(
            bone_age_months=prediction.bone_age_months,
            sd_months=prediction.sd_months,
            z_score=assessment.z_score,
            model=prediction.model,
        )


def _patient(item: Forwardable) -> str | None:
    return item.eligibility.patient_pseudonym if item.eligibility else None
