"""What every ledger does, the real one and the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.exam import UNKNOWN_SENDER, Outcome, Receipt
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.domain.retry import MAX_CRASHES, Park, RetryAt
from dicom_node.ports import Ledger
from tests.builders.exams import (
    LEASE_SECONDS,
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
from tests.fakes.clock import ManualClock

ALL = tuple(Stage)


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
    assert ledger.delivered(exam_id, "pacs") == {}
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


def test_deliveries_that_wait_for_a_silent_destination_can_be_made_due(
    ledger: Ledger, clock: ManualClock
) -> None:
    waits = {"pacs": Fault.DESTINATION_UNAVAILABLE, "archive": Fault.DESTINATION_UNAVAILABLE}
    exam_before(ledger, Stage.DELIVER, destinations=("archive", "pacs"))
    for job in claim(ledger):
        later = RetryAt(
            run_after=clock.now() + timedelta(hours=1), fault=waits[job.destination], detail="gone"
        )
        ledger.fail(job, later)
    exam_before(ledger, Stage.DELIVER, number=2)
    busy = RetryAt(
        run_after=clock.now() + timedelta(hours=1), fault=Fault.DESTINATION_BUSY, detail="full"
    )
    ledger.fail(claim_one(ledger, Stage.DELIVER), busy)
    clock.advance(1)
    assert claim(ledger) == []
    assert ledger.hurry("pacs") == 1
    assert ledger.hurry("pacs") == 0
    assert [job.destination for job in claim(ledger)] == ["pacs"]
