"""What every ledger knows of reports: stored where, revised, and of earlier exams."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from dicom_node.domain.delivery import PreviousReport, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.exam import Receipt
from dicom_node.domain.job import Stage
from dicom_node.ports import Ledger
from tests.builders.exams import (
    answer,
    claim,
    claim_one,
    complete,
    eligibility,
    exam_before,
    instance,
    prediction,
    report_objects,
)


def test_what_a_destination_has_stored_is_known_per_destination(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER, destinations=("archive", "pacs"))
    archive, pacs = sorted(claim(ledger), key=lambda job: job.destination)
    ledger.record_delivery(archive, answer(exam_id, "archive", verdict=Verdict.STORED))
    refused = answer(exam_id, "pacs", status=0xC000, verdict=Verdict.REFUSED)
    ledger.record_delivery(pacs, refused)
    first = report_objects(exam_id)[0].sop_instance_uid
    assert set(ledger.delivered(exam_id, "archive")) == {first}
    assert ledger.delivered(exam_id, "pacs") == {}
    ledger.record_delivery(pacs, answer(exam_id, "pacs", verdict=Verdict.STORED))
    ledger.record_delivery(pacs, refused)
    assert set(ledger.delivered(exam_id, "pacs")) == {first}


def test_a_corrected_exam_knows_as_what_the_earlier_documents_are_stored(ledger: Ledger) -> None:
    first = exam_before(ledger, Stage.DELIVER)
    sent = answer(first, "pacs", verdict=Verdict.STORED)
    as_text = replace(sent.answer, sent_sop_class_uid="1.2.840.1", sent_sop_instance_uid="2.25.9")
    ledger.record_delivery(claim_one(ledger, Stage.DELIVER), replace(sent, answer=as_text))
    corrected, _ = ledger.record_instance(instance(content="corrected"))
    elsewhere = replace(instance(content="corrected too"), institution_id="hospital-2")
    other, _ = ledger.record_instance(elsewhere)
    assert ledger.delivered(corrected, "pacs") == {sent.sop_instance_uid: as_text}
    assert ledger.delivered(corrected, "archive") == {}
    assert ledger.delivered(other, "pacs") == {}


def test_own_reports_are_recognised(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    assert all(ledger.is_own_report(made.sop_instance_uid) for made in report_objects(exam_id))
    assert not ledger.is_own_report(instance().sop_instance_uid)


def test_the_first_report_replaces_none(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.REPORT)
    assert ledger.previous_report(exam_id) is None


def test_a_corrected_instance_knows_the_report_of_the_one_before(ledger: Ledger) -> None:
    first = exam_before(ledger, Stage.DELIVER)
    corrected, receipt = ledger.record_instance(instance(content="corrected"))
    elsewhere, _ = ledger.record_instance(instance(number=2))
    assert receipt is Receipt.CONFLICT
    previous = ledger.previous_report(corrected)
    assert previous == PreviousReport(
        revision=1,
        study_instance_uid=eligibility().study_instance_uid,
        objects=report_objects(first),
    )
    assert ledger.previous_report(elsewhere) is None


def test_another_institution_has_its_own_reports(ledger: Ledger) -> None:
    exam_before(ledger, Stage.DELIVER)
    other = replace(instance(content="corrected"), institution_id="hospital-2")
    exam_id, _ = ledger.record_instance(other)
    assert ledger.previous_report(exam_id) is None


def test_earlier_exams_of_a_patient_are_found_by_pseudonym(ledger: Ledger) -> None:
    def assessed(number: int, day: date | None, pseudonym: str | None, months: float) -> int:
        exam_id, _ = ledger.record_instance(instance(number=number))
        screened = replace(eligibility(), study_date=day, patient_pseudonym=pseudonym)
        ledger.complete_screen(claim_one(ledger, Stage.SCREEN), screened)
        made = replace(prediction(), bone_age_months=months)
        ledger.complete_infer(claim_one(ledger, Stage.INFER), made)
        complete(ledger, claim_one(ledger, Stage.REPORT), destinations=())
        return exam_id

    first, second, third = date(2024, 1, 1), date(2025, 1, 1), date(2026, 1, 1)
    middle = assessed(1, second, "a", 100.0)
    assessed(2, first, "a", 90.0)
    last = assessed(3, third, "a", 110.0)
    same_day = assessed(4, third, "a", 111.0)
    stranger = assessed(5, third, "b", 50.0)
    undated = assessed(6, None, "a", 60.0)
    nobody, another = assessed(7, third, None, 70.0), assessed(8, third, None, 70.0)

    def found(exam_id: int) -> list[tuple[date, float]]:
        return [(p.study_date, p.bone_age_months) for p in ledger.prior_results(exam_id)]

    assert found(middle) == [(first, 90.0)]
    assert found(last) == found(same_day) == [(first, 90.0), (second, 100.0)]
    assert found(stranger) == found(undated) == found(nobody) == found(another) == []
    [prior] = ledger.prior_results(middle)
    assert prior.chronological_age_months == eligibility().chronological_age_months
    assert prior.model == prediction().model


def test_an_exam_that_is_no_longer_assessed_is_no_earlier_result(ledger: Ledger) -> None:
    earlier = replace(eligibility(), study_date=date(2020, 1, 1))
    ledger.record_instance(instance())
    ledger.complete_screen(claim_one(ledger, Stage.SCREEN), earlier)
    job = claim_one(ledger, Stage.INFER)
    ledger.complete_not_assessed(job, Reason.INDETERMINATE, study_instance_uid="1.2", report=False)
    later = exam_before(ledger, Stage.REPORT, number=2)
    assert ledger.prior_results(later) == ()


def test_what_was_assessed_before_leaves_no_prediction_when_it_no_longer_is(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.REPORT)
    assert ledger.prediction(exam_id) == prediction()
    job = claim_one(ledger, Stage.REPORT)
    ledger.complete_not_assessed(job, Reason.NO_HAND_FOUND, study_instance_uid="1.2", report=True)
    assert ledger.prediction(exam_id) is None
