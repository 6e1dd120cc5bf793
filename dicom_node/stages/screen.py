"""SCREEN: decide from the header whether the node assesses an instance."""

from __future__ import annotations

from collections.abc import Callable

from dicom_node.domain.eligibility import Disposition, Eligible, Ineligible, Reason, screen
from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import Exam, Header, Outcome
from dicom_node.domain.job import Job
from dicom_node.logs import log
from dicom_node.metrics import exam_ended
from dicom_node.ports import Eligibility, HeaderReader, Ledger, Spool

Pseudonymise = Callable[[str, Header], str | None]
"""Institution id and header to the patient's pseudonym; None without a Patient ID. Raises
``NodeError`` without a usable key."""


class Screen:
    """Runs one job(SCREEN). ``reports_not_assessed``: whether an institution wants such reports."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        read_header: HeaderReader,
        reports_not_assessed: Callable[[str], bool],
        pseudonym: Pseudonymise,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._read_header = read_header
        self._reports_not_assessed = reports_not_assessed
        self._pseudonym = pseudonym

    def __call__(self, job: Job) -> None:
        """Store the decision and queue the next job. What was reported before and is not assessed
        any more gets a report that says so, whatever the institution wants.

        Raises ``Permanent`` when the object has changed on the disk or its header cannot be read.
        """
        exam = self._ledger.exam(job.exam_id)
        self._spool.verify(exam.instance.content_sha256)
        header = self._read_header(self._spool.path(exam.instance.content_sha256))
        decision = self._decide(header)
        if isinstance(decision, Ineligible):
            self._close(job, exam, header, decision)
        else:
            pseudonym = self._pseudonym_of(exam, header)
            self._ledger.complete_screen(job, eligibility_of(header, decision, pseudonym))

    def _pseudonym_of(self, exam: Exam, header: Header) -> str | None:
        """None also without a usable key: a report without its comparison is better than none."""
        try:
            return self._pseudonym(exam.instance.institution_id, header)
        except NodeError as error:
            log("patient_key_unusable", exam_id=exam.exam_id, fault=error.fault)
            return None

    def _decide(self, header: Header) -> Eligible | Ineligible:
        if self._ledger.is_own_report(header.sop_instance_uid):
            return Ineligible(reason=Reason.OWN_RESULT, disposition=Disposition.IGNORE)
        return screen(header)

    def _close(self, job: Job, exam: Exam, header: Header, decision: Ineligible) -> None:
        study, reported = header.study_instance_uid, self._ledger.previous_report(exam.exam_id)
        if decision.disposition is Disposition.IGNORE and reported is None:
            self._ledger.complete_ignored(job, decision.reason, study_instance_uid=study)
            log("exam_ignored", exam_id=exam.exam_id, reason=decision.reason)
            exam_ended(Outcome.IGNORED, decision.reason, before=exam.outcome)
        else:
            self._ledger.complete_not_assessed(
                job,
                decision.reason,
                study_instance_uid=study,
                report=reported is not None
                or self._reports_not_assessed(exam.instance.institution_id),
            )
            log("exam_not_assessed", exam_id=exam.exam_id, reason=decision.reason)
            exam_ended(Outcome.NOT_ASSESSED, decision.reason, before=exam.outcome)


def eligibility_of(
    header: Header, decision: Eligible, patient_pseudonym: str | None
) -> Eligibility:
    """What the later stages need of a header that was found eligible."""
    return Eligibility(
        study_instance_uid=header.study_instance_uid,
        sex=decision.sex,
        laterality=header.laterality,
        view_position=header.view_position,
        chronological_age_months=decision.chronological_age_months,
        study_date=header.study_date,
        patient_pseudonym=patient_pseudonym,
        notes=decision.notes,
    )
