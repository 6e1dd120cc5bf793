"""What archiving and purging tell the audit trail."""

from __future__ import annotations

from pathlib import Path

from dicom_node.domain.audit import Application, Operator, Subject
from dicom_node.domain.audit_retention import deleted, exported
from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.exam import Exam
from dicom_node.headers import read_subject, subject_in
from dicom_node.ports import AuditTrail, Clock


class RetentionAudit:
    """The port ``RetentionWitness``. ``operator``: who runs the command, None for the node itself;
    ``archive``: the address of the archive."""

    def __init__(
        self,
        trail: AuditTrail,
        *,
        application: Application,
        clock: Clock,
        operator: Operator | None,
        archive: str,
    ) -> None:
        self._trail = trail
        self._application = application
        self._clock = clock
        self._operator = operator
        self._archive = archive

    def purging(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """DICOM Study Deleted, before it is: what is lost by a crash is recorded twice, not
        never."""
        what = "reports" if reports else "image"
        self._trail.record(
            deleted(
                _subject(exam, image, reports),
                _sop_classes(exam, reports),
                self._application,
                self._clock.now(),
                operator=self._operator,
                details={"Purged": what, "Exam": str(exam.exam_id)},
            )
        )

    def archived(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """Export."""
        self._trail.record(
            exported(
                _subject(exam, image, reports),
                _sop_classes(exam, reports),
                self._application,
                self._clock.now(),
                operator=self._operator,
                uri=self._archive,
            )
        )


def _subject(exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> Subject:
    if reports:
        return subject_in(reports[0].encoded)
    if image is not None:
        return read_subject(image)
    return Subject(study_instance_uid=exam.study_instance_uid)


def _sop_classes(exam: Exam, reports: tuple[ReportObject, ...]) -> tuple[str, ...]:
    if reports:
        return tuple(item.sop_class_uid for item in reports)
    return (exam.instance.sop_class_uid,)
