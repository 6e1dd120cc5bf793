"""Delivered exams that wait for proof."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.adapters.ledger import SqlLedger
from dicom_node.domain.delivery import Answer, Delivery, ReportKind, ReportObject, Verdict
from dicom_node.domain.job import Stage
from tests.builders.exams import claim_one, exam_before
from tests.builders.report_objects import report_object

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


def encoded_report(kind: ReportKind = ReportKind.NARRATIVE) -> ReportObject:
    """A small SR as a file."""
    dataset = Dataset()
    dataset.SOPClassUID = ENHANCED_SR
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "SR"
    dataset.PatientID = "1"
    return report_object(dataset, kind)


def reported_exam(ledger: SqlLedger, *reports: ReportObject, number: int = 1) -> int:
    """An exam whose report waits to be delivered to ``pacs``."""
    exam_id = exam_before(ledger, Stage.REPORT, number=number)
    job = claim_one(ledger, Stage.REPORT)
    ledger.complete_report(job, reports, ("pacs",), revision=1)
    return exam_id


def deliver(ledger: SqlLedger, *reports: ReportObject, sent_as: str | None = None) -> None:
    """Answer the one due job(DELIVER) with success for all of these, and ask for proof."""
    job = claim_one(ledger, Stage.DELIVER)
    for report in reports:
        ledger.record_delivery(job, stored(report, sent_as or report.sop_instance_uid))
    ledger.complete_deliver(job, confirm=True)


def stored(report: ReportObject, sent_as: str) -> Delivery:
    """A destination's success."""
    return Delivery(
        sop_instance_uid=report.sop_instance_uid,
        destination="pacs",
        answer=Answer(
            status=0, sent_sop_class_uid=report.sop_class_uid, sent_sop_instance_uid=sent_as
        ),
        verdict=Verdict.STORED,
    )
