"""Forward: tell the centre what it may know, in batches. Not a stage of a job: an exam is told as
often as its facts change, and no exam waits for the centre."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dicom_node.domain.assessment import ReferenceTable
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.exam import Outcome
from dicom_node.domain.record import ExamRecord, ResultRecord
from dicom_node.logs import log
from dicom_node.ports import CentralArchive, ExamPseudonyms, Forwardable, Outbox
from dicom_node.stages.report import assessment_of

BATCH = 200
"""Exams in one transaction of the centre: what is in memory at once, however long it was away."""

_RUN_SECONDS = 30.0
"""After so long a stop is noticed, however slow the centre is."""


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
        """Send what waits, up to a limit; return how many exams. Raises what the centre raises."""
        batch = self._agree()
        sent, until = 0, time.monotonic() + _RUN_SECONDS
        while time.monotonic() < until:
            waiting = self._outbox.waiting(BATCH)
            if not waiting:
                break
            batch, taken = self._send(waiting, batch)
            sent += taken
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

    def _send(self, waiting: Sequence[Forwardable], batch: int) -> tuple[int, int]:
        """The number of the last batch now, and how many exams the centre took. What it does not
        take for its values, and what has no name for want of its key, is set aside."""
        try:
            records = [self.record(item) for item in waiting]
            self._centre.store(records, batch=batch + 1)
        except Permanent as error:
            if error.fault not in {Fault.RECORD_REFUSED, Fault.STORAGE_UNAVAILABLE}:
                raise
            if len(waiting) > 1:
                return self._send_singly(waiting, batch)
            [item] = waiting
            self._outbox.refused(item.exam.exam_id, item.change, error.fault)
            log("exam_not_forwarded", exam_id=item.exam.exam_id, error=error)
            return batch, 0
        changes = {item.exam.exam_id: item.change for item in waiting}
        self._outbox.forwarded(changes, batch=batch + 1)
        return batch + 1, len(waiting)

    def _send_singly(self, waiting: Sequence[Forwardable], batch: int) -> tuple[int, int]:
        sent = 0
        for item in waiting:
            batch, taken = self._send([item], batch)
            sent += taken
        return batch, sent

    def _result(self, item: Forwardable) -> ResultRecord | None:
        assessed = item.exam.outcome is Outcome.ASSESSED
        if not assessed or item.prediction is None or item.eligibility is None:
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
