"""What every ledger does, the real one and the one in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.domain.delivery import PreviousReport, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.exam import UNKNOWN_SENDER, Outcome, Receipt
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.domain.retry import MAX_CRASHES, Park, RetryAt
from dicom_node.ports import Ledger
from tests.builders.exams import (
    LEASE_SECONDS,
    answer,
    claim_one,
    complete,
    eligibility,
    exam_before,
    instance,
    prediction,
    report_objects,
)
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger

ALL = tuple(Stage)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    if request.param == "memory":
        yield InMemoryLedger(clock)
        return
    migrate(tmp_path / "ledger.sqlite")
    sql_ledger = SqlLedger(tmp_path / "ledger.sqlite", clock)
    yield sql_ledger
    sql_ledger.close()


def claim(
    ledger: Ledger, *stages: Stage, limit: int = 10, destination: str | None = None
) -> list[Job]:
    return ledger.claim(
        stages or ALL,
        owner="worker",
        lease_seconds=LEASE_SECONDS,
        limit=limit,
        destination=destination,
    )


def test_a_new_instance_gets_a_pending_exam_and_one_screen_job(
    ledger: Ledger, clock: ManualClock
) -> None:
    exam_id, receipt = ledger.record_instance(instance())
    assert receipt is Receipt.NEW
    exam = ledger.exam(exam_id)
    assert exam.instance == instance()
    assert (exam.outcome, exam.reason, exam.notes) == (Outcome.PENDING, None, ())
    (job,) = claim(ledger)
    assert (job.exam_id, job.stage, job.destination) == (exam_id, Stage.SCREEN, "")
    assert (job.state, job.attempt, job.crashes) == (JobState.LEASED, 1, 0)
    assert job.created_at == job.run_after == clock.now()


def test_the_same_instance_again_is_a_duplicate_and_changes_nothing(ledger: Ledger) -> None:
    exam_id, _ = ledger.record_instance(instance())
    assert ledger.record_instance(instance()) == (exam_id, Receipt.DUPLICATE)
    assert len(claim(ledger)) == 1


def test_a_duplicate_of_a_finished_exam_starts_nothing(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    complete(ledger, claim_one(ledger, Stage.DELIVER))
    assert ledger.record_instance(instance()) == (exam_id, Receipt.DUPLICATE)
    assert claim(ledger) == []


def test_other_content_under_a_known_uid_is_kept_but_parked(
    ledger: Ledger, clock: ManualClock
) -> None:
    first, _ = ledger.record_instance(instance())
    second, receipt = ledger.record_instance(instance(content="changed"))
    assert receipt is Receipt.CONFLICT
    assert second != first
    assert ledger.exam(second).instance == instance(content="changed")
    assert ledger.record_instance(instance(content="changed")) == (second, Receipt.DUPLICATE)
    clock.advance(1e6)
    assert [job.exam_id for job in claim(ledger)] == [first]


def test_an_unknown_exam_is_a_key_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.exam(7)


def test_an_exam_goes_through_all_stages(ledger: Ledger) -> None:
    exam_id, _ = ledger.record_instance(instance())
    assert ledger.eligibility(exam_id) is None
    assert ledger.prediction(exam_id) is None

    complete(ledger, claim_one(ledger, Stage.SCREEN))
    exam = ledger.exam(exam_id)
    assert ledger.eligibility(exam_id) == eligibility()
    assert exam.study_instance_uid == eligibility().study_instance_uid
    assert exam.notes == eligibility().notes
    assert exam.outcome is Outcome.PENDING

    complete(ledger, claim_one(ledger, Stage.INFER))
    assert ledger.prediction(exam_id) == prediction()
    assert ledger.exam(exam_id).outcome is Outcome.ASSESSED
    assert ledger.report_objects(exam_id) == ()

    complete(ledger, claim_one(ledger, Stage.REPORT))
    assert ledger.report_objects(exam_id) == report_objects(exam_id)

    job = claim_one(ledger, Stage.DELIVER)
    assert job.destination == "pacs"
    complete(ledger, job)
    assert claim(ledger) == []


def test_a_prediction_may_have_neither_findings_nor_saliency(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.INFER)
    plain = replace(prediction(), findings=(), saliency=None)
    ledger.complete_infer(claim_one(ledger, Stage.INFER), plain)
    assert ledger.prediction(exam_id) == plain


def test_an_ignored_exam_ends(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.SCREEN)
    job = claim_one(ledger, Stage.SCREEN)
    ledger.complete_ignored(job, Reason.OTHER_MODALITY, study_instance_uid="1.2.3")
    exam = ledger.exam(exam_id)
    assert (exam.outcome, exam.reason) == (Outcome.IGNORED, Reason.OTHER_MODALITY)
    assert exam.study_instance_uid == "1.2.3"
    assert ledger.eligibility(exam_id) is None
    assert claim(ledger) == []


@pytest.mark.parametrize("stage", [Stage.SCREEN, Stage.INFER])
@pytest.mark.parametrize("report", [True, False])
def test_an_exam_that_is_not_assessed_is_reported_only_if_wanted(
    ledger: Ledger, stage: Stage, *, report: bool
) -> None:
    exam_id = exam_before(ledger, stage)
    ledger.complete_not_assessed(
        claim_one(ledger, stage), Reason.IMAGE_BLANK, study_instance_uid="1.2.3", report=report
    )
    exam = ledger.exam(exam_id)
    assert (exam.outcome, exam.reason) == (Outcome.NOT_ASSESSED, Reason.IMAGE_BLANK)
    assert [job.stage for job in claim(ledger)] == ([Stage.REPORT] if report else [])


def test_each_destination_gets_one_deliver_job(ledger: Ledger) -> None:
    exam_before(ledger, Stage.DELIVER, destinations=("pacs", "archive", "pacs"))
    assert ledger.open_destinations() == {"pacs", "archive"}
    assert sorted(job.destination for job in claim(ledger)) == ["archive", "pacs"]
    assert ledger.open_destinations() == frozenset()


def test_without_destinations_nothing_is_left_to_do(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER, destinations=())
    assert ledger.report_objects(exam_id) == report_objects(exam_id)
    assert claim(ledger) == []


def test_the_report_of_one_destination_can_be_claimed_alone(ledger: Ledger) -> None:
    exam_before(ledger, Stage.DELIVER, destinations=("pacs", "archive"))
    assert [job.destination for job in claim(ledger, destination="archive")] == ["archive"]
    assert [job.destination for job in claim(ledger)] == ["pacs"]


def test_later_stages_come_first_then_what_has_been_due_longest(
    ledger: Ledger, clock: ManualClock
) -> None:
    exam_before(ledger, Stage.INFER, number=1)
    for number in (2, 3):
        clock.advance(1)
        ledger.record_instance(instance(number))
    assert [job.exam_id for job in claim(ledger, limit=2)] == [1, 2]
    assert [job.exam_id for job in claim(ledger, limit=2)] == [3]


def test_only_the_stages_asked_for_are_claimed(ledger: Ledger) -> None:
    exam_before(ledger, Stage.INFER, number=1)
    ledger.record_instance(instance(2))
    assert [job.stage for job in claim(ledger, Stage.SCREEN, Stage.DELIVER)] == [Stage.SCREEN]


def test_an_expired_lease_is_claimed_again_and_counts_as_a_crash(
    ledger: Ledger, clock: ManualClock
) -> None:
    ledger.record_instance(instance())
    first = claim_one(ledger, Stage.SCREEN)
    clock.advance(LEASE_SECONDS - 0.001)
    assert claim(ledger) == []
    clock.advance(0.001)
    second = claim_one(ledger, Stage.SCREEN)
    assert (second.job_id, second.attempt, second.crashes) == (first.job_id, 2, 1)


def test_a_job_that_keeps_crashing_is_parked(ledger: Ledger, clock: ManualClock) -> None:
    ledger.record_instance(instance())
    ledger.record_instance(instance(2))
    for _ in range(MAX_CRASHES):
        assert 1 in {job.exam_id for job in claim(ledger)}
        clock.advance(LEASE_SECONDS)
    assert claim(ledger) == []


def test_a_job_that_crashed_goes_behind_those_that_wait(ledger: Ledger, clock: ManualClock) -> None:
    ledger.record_instance(instance(1))
    claim_one(ledger, Stage.SCREEN)
    clock.advance(1)
    ledger.record_instance(instance(2))
    clock.advance(LEASE_SECONDS)
    assert [job.exam_id for job in claim(ledger)] == [2, 1]


def test_a_restarted_process_gives_up_its_own_leases_only(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.record_instance(instance(number))
    dead = ledger.claim([Stage.SCREEN], owner="dead", lease_seconds=LEASE_SECONDS, limit=2)
    alive = ledger.claim([Stage.SCREEN], owner="alive", lease_seconds=LEASE_SECONDS)
    assert ledger.expire_leases("dead") == 2
    assert ledger.expire_leases("dead") == 0
    again = claim(ledger)
    assert [(job.job_id, job.crashes) for job in again] == [(job.job_id, 1) for job in dead]
    complete(ledger, alive[0])
    with pytest.raises(LeaseLost):
        complete(ledger, dead[0])


def test_a_process_that_dies_three_times_over_a_job_parks_it(ledger: Ledger) -> None:
    ledger.record_instance(instance())
    for _ in range(MAX_CRASHES):
        claim_one(ledger, Stage.SCREEN)
        ledger.expire_leases("worker")
    assert claim(ledger) == []


LATE_WRITES: list[tuple[Stage, Callable[[Ledger, Job], None]]] = [
    (Stage.SCREEN, complete),
    (Stage.INFER, complete),
    (Stage.REPORT, complete),
    (Stage.DELIVER, complete),
    (
        Stage.SCREEN,
        lambda ledger, job: ledger.complete_ignored(
            job, Reason.OTHER_MODALITY, study_instance_uid="1.2"
        ),
    ),
    (
        Stage.SCREEN,
        lambda ledger, job: ledger.complete_not_assessed(
            job, Reason.SEX_MISSING, study_instance_uid="1.2", report=True
        ),
    ),
    (
        Stage.DELIVER,
        lambda ledger, job: ledger.record_delivery(
            job, answer(job.exam_id, "pacs", verdict=Verdict.STORED)
        ),
    ),
    (
        Stage.INFER,
        lambda ledger, job: ledger.fail(job, Park(fault=Fault.UNEXPECTED, detail="late")),
    ),
    (
        Stage.INFER,
        lambda ledger, job: ledger.fail(
            job, RetryAt(run_after=job.created_at, fault=Fault.UNEXPECTED, detail="late")
        ),
    ),
]


@pytest.mark.parametrize(("stage", "write"), LATE_WRITES)
def test_a_late_owner_changes_nothing(
    ledger: Ledger, clock: ManualClock, stage: Stage, write: Callable[[Ledger, Job], None]
) -> None:
    exam_id = exam_before(ledger, stage)
    late = claim_one(ledger, stage, owner="late")
    clock.advance(LEASE_SECONDS)
    current = claim_one(ledger, stage, owner="current")
    before = (ledger.exam(exam_id), ledger.report_objects(exam_id))
    with pytest.raises(LeaseLost):
        write(ledger, late)
    assert (ledger.exam(exam_id), ledger.report_objects(exam_id)) == before
    assert ledger.delivered(exam_id, "pacs") == frozenset()
    assert claim(ledger) == []
    complete(ledger, current)


@pytest.mark.parametrize(("stage", "write"), LATE_WRITES)
def test_a_finished_job_takes_no_second_result(
    ledger: Ledger, stage: Stage, write: Callable[[Ledger, Job], None]
) -> None:
    exam_before(ledger, stage)
    job = claim_one(ledger, stage)
    complete(ledger, job)
    with pytest.raises(LeaseLost):
        write(ledger, job)


def test_a_failed_job_waits_until_its_time_and_says_why(ledger: Ledger, clock: ManualClock) -> None:
    ledger.record_instance(instance())
    run_after = clock.now() + timedelta(seconds=30)
    decision = RetryAt(run_after=run_after, fault=Fault.STORAGE_UNAVAILABLE, detail="disk full")
    ledger.fail(claim_one(ledger, Stage.SCREEN), decision)
    clock.advance(29.999)
    assert claim(ledger) == []
    clock.advance(0.001)
    job = claim_one(ledger, Stage.SCREEN)
    assert (job.attempt, job.crashes) == (2, 0)
    assert (job.fault, job.detail) == (Fault.STORAGE_UNAVAILABLE, "disk full")


def test_a_parked_job_is_never_claimed(ledger: Ledger, clock: ManualClock) -> None:
    ledger.record_instance(instance())
    ledger.fail(claim_one(ledger, Stage.SCREEN), Park(fault=Fault.UNEXPECTED, detail="why"))
    clock.advance(1e8)
    assert claim(ledger) == []


def test_what_a_destination_has_stored_is_known_per_destination(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER, destinations=("archive", "pacs"))
    archive, pacs = sorted(claim(ledger), key=lambda job: job.destination)
    ledger.record_delivery(archive, answer(exam_id, "archive", verdict=Verdict.STORED))
    refused = answer(exam_id, "pacs", status=0xC000, verdict=Verdict.REFUSED)
    ledger.record_delivery(pacs, refused)
    first = report_objects(exam_id)[0].sop_instance_uid
    assert ledger.delivered(exam_id, "archive") == {first}
    assert ledger.delivered(exam_id, "pacs") == frozenset()
    ledger.record_delivery(pacs, answer(exam_id, "pacs", verdict=Verdict.STORED))
    ledger.record_delivery(pacs, refused)
    assert ledger.delivered(exam_id, "pacs") == {first}


def test_own_reports_are_recognised(ledger: Ledger) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    assert all(ledger.is_own_report(made.sop_instance_uid) for made in report_objects(exam_id))
    assert not ledger.is_own_report(instance().sop_instance_uid)


def test_a_forgotten_sender_is_filled_in_when_the_object_comes_again(ledger: Ledger) -> None:
    forgotten = replace(
        instance(),
        institution_id=UNKNOWN_SENDER,
        calling_ae_title=UNKNOWN_SENDER,
        peer_address=UNKNOWN_SENDER,
    )
    exam_id, _ = ledger.record_instance(forgotten)
    other = replace(instance(), institution_id="hospital-2")
    assert ledger.record_instance(instance()) == (exam_id, Receipt.DUPLICATE)
    assert ledger.record_instance(other) == (exam_id, Receipt.DUPLICATE)
    found = ledger.exam(exam_id).instance
    assert (found.institution_id, found.calling_ae_title) == ("hospital-1", "MODALITY")


@pytest.mark.parametrize("fault", [Fault.CORRUPT_SPOOL, Fault.INSTITUTION_UNKNOWN])
def test_a_job_that_waited_for_the_object_goes_on_when_it_comes_again(
    ledger: Ledger, fault: Fault
) -> None:
    ledger.record_instance(instance())
    ledger.fail(claim_one(ledger, Stage.SCREEN), Park(fault=fault, detail="why"))
    assert claim(ledger) == []
    ledger.record_instance(instance())
    (job,) = claim(ledger)
    assert (job.fault, job.crashes) == (None, 0)


def test_a_job_parked_for_another_reason_stays_parked_when_the_object_comes_again(
    ledger: Ledger,
) -> None:
    ledger.record_instance(instance())
    ledger.fail(claim_one(ledger, Stage.SCREEN), Park(fault=Fault.UNEXPECTED, detail="why"))
    ledger.record_instance(instance())
    assert claim(ledger) == []


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
