"""What an operator does to jobs and exams."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.domain.delivery import PreviousReport
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import ForbiddenTransition, JobState, Stage
from tests.builders.exams import (
    LEASE_SECONDS,
    WAY,
    claim,
    claim_one,
    complete,
    eligibility,
    exam_before,
    instance,
    park,
    prediction,
    report_objects,
)
from tests.fakes.clock import ManualClock


def test_a_retried_job_starts_afresh(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    ledger.record_instance(instance())
    claim_one(ledger, Stage.SCREEN)
    clock.advance(LEASE_SECONDS)
    job_id = park(ledger)
    clock.advance(1e6)
    operator.retry_job(job_id)
    job = claim_one(ledger, Stage.SCREEN)
    assert (job.job_id, job.attempt, job.crashes) == (job_id, 3, 0)
    assert job.created_at == job.run_after == clock.now()
    assert (job.fault, job.detail) == (None, "")


def test_an_operator_parks_a_job_that_runs_and_its_result_is_refused(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    ledger.record_instance(instance())
    job = claim_one(ledger, Stage.SCREEN)
    operator.park_job(job.job_id, "wrong hospital")
    with pytest.raises(LeaseLost):
        complete(ledger, job)
    (parked,) = operator.jobs(limit=9)
    assert (parked.state, parked.fault) == (JobState.PARKED, Fault.OPERATOR)
    assert parked.detail == "wrong hospital"


def test_a_discarded_job_is_gone_for_good_and_says_why(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    ledger.record_instance(instance())
    job_id = park(ledger)
    operator.discard_job(job_id, "test image")
    (job,) = operator.jobs(limit=9)
    assert (job.state, job.detail) == (JobState.DISCARDED, "test image")
    assert job.fault is Fault.CORRUPT_SPOOL
    with pytest.raises(ForbiddenTransition, match=f"job {job_id}: a discarded job cannot"):
        operator.retry_job(job_id)


def test_steps_outside_the_life_cycle_are_refused_and_change_nothing(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    ledger.record_instance(instance())
    (queued,) = operator.jobs(limit=9)
    with pytest.raises(ForbiddenTransition, match="a queued job cannot take the step retry"):
        operator.retry_job(queued.job_id)
    job = claim_one(ledger, Stage.SCREEN)
    with pytest.raises(ForbiddenTransition, match="a leased job cannot take the step discard"):
        operator.discard_job(job.job_id, "no")
    complete(ledger, job)
    with pytest.raises(ForbiddenTransition, match="a done job cannot take the step park"):
        operator.park_job(job.job_id, "no")


def test_an_unknown_job_is_a_key_error(operator: OperatorLedger) -> None:
    with pytest.raises(KeyError):
        operator.retry_job(5)
    with pytest.raises(KeyError):
        operator.park_job(5, "no")
    with pytest.raises(KeyError):
        operator.discard_job(5, "no")


def test_a_node_that_starts_ends_every_lease_whoever_held_it(ledger: SqlLedger) -> None:
    for number, owner in enumerate(("worker-7", "delivery-0:gone"), 1):
        ledger.record_instance(instance(number))
        claim_one(ledger, Stage.SCREEN, owner=owner)
    assert ledger.expire_all_leases() == 2
    assert ledger.expire_all_leases() == 0
    assert [job.crashes for job in claim(ledger)] == [1, 1]


@pytest.mark.parametrize("leased", [True, False])
def test_a_clock_that_was_set_back_does_not_hold_jobs_up(
    ledger: SqlLedger, clock: ManualClock, leased: bool
) -> None:
    clock.advance(86_400)
    ledger.record_instance(instance())
    if leased:
        claim_one(ledger, Stage.SCREEN)
    clock.advance(-86_400)
    assert ledger.claim([Stage.SCREEN], owner="worker", lease_seconds=1) == []
    assert ledger.mend_clock_step() == 1
    assert ledger.mend_clock_step() == 0
    claim_one(ledger, Stage.SCREEN)


def test_an_exam_is_assessed_again_and_its_last_report_counts(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    complete(ledger, claim_one(ledger, Stage.DELIVER))
    operator.reassess(exam_id)
    complete(ledger, claim_one(ledger, Stage.SCREEN))
    older = replace(prediction(), bone_age_months=130.0)
    ledger.complete_infer(claim_one(ledger, Stage.INFER), older)
    previous = ledger.previous_report(exam_id)
    assert previous == PreviousReport(
        revision=1,
        study_instance_uid=eligibility().study_instance_uid,
        objects=report_objects(exam_id),
    )
    revised = tuple(
        replace(made, sop_instance_uid=f"{made.sop_instance_uid}.2") for made in previous.objects
    )
    ledger.complete_report(claim_one(ledger, Stage.REPORT), revised, ("pacs",), revision=2)
    assert ledger.report_objects(exam_id) == revised
    details = operator.exam_details(exam_id)
    assert [report.revision for report in details.reports] == [1, 1, 2, 2]
    assert details.prediction == older
    assert details.exam.outcome is Outcome.ASSESSED
    assert "operator_reassessed" in [line.event for line in details.journal]


def test_the_same_report_again_is_stored_once(ledger: SqlLedger, operator: OperatorLedger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    complete(ledger, claim_one(ledger, Stage.DELIVER))
    operator.reassess(exam_id)
    for stage in WAY:
        complete(ledger, claim_one(ledger, stage))
    assert len(operator.exam_details(exam_id).reports) == 2


def test_an_exam_with_open_jobs_is_not_assessed_again(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_id = exam_before(ledger, Stage.REPORT)
    with pytest.raises(ForbiddenTransition, match="open jobs"):
        operator.reassess(exam_id)
    with pytest.raises(KeyError):
        operator.reassess(exam_id + 1)


def approve_correction(ledger: SqlLedger, operator: OperatorLedger) -> int:
    """Another header of the first instance, which a person has looked at."""
    corrected, _ = ledger.record_instance(instance(content="corrected"))
    [job] = operator.exam_details(corrected).jobs
    operator.retry_job(job.job_id)
    return corrected


def report_at(ledger: SqlLedger, exam_id: int, day: date, months: float) -> None:
    screened = replace(eligibility(), study_date=day)
    ledger.complete_screen(claim_one(ledger, Stage.SCREEN), screened)
    made = replace(prediction(), bone_age_months=months)
    ledger.complete_infer(claim_one(ledger, Stage.INFER), made)
    previous = ledger.previous_report(exam_id)
    revision = previous.revision + 1 if previous else 1
    job = claim_one(ledger, Stage.REPORT)
    ledger.complete_report(job, report_objects(exam_id), (), revision=revision)


def test_of_an_image_that_was_corrected_only_the_last_report_is_an_earlier_result(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    def earlier() -> list[float]:
        return [prior.bone_age_months for prior in ledger.prior_results(later)]

    wrong, _ = ledger.record_instance(instance())
    report_at(ledger, wrong, date(2024, 1, 1), 90.0)
    later = exam_before(ledger, Stage.DELIVER, number=2, destinations=())
    right = approve_correction(ledger, operator)
    assert earlier() == [90.0]
    report_at(ledger, right, date(2024, 1, 2), 91.0)
    assert earlier() == [91.0]


def test_an_exam_that_was_corrected_is_not_assessed_again(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    wrong, _ = ledger.record_instance(instance())
    report_at(ledger, wrong, date(2024, 1, 1), 90.0)
    right = approve_correction(ledger, operator)
    report_at(ledger, right, date(2024, 1, 1), 91.0)
    with pytest.raises(ForbiddenTransition, match=f"was corrected: exam {right} holds the last"):
        operator.reassess(wrong)
    operator.reassess(right)
    assert claim_one(ledger, Stage.SCREEN).exam_id == right
