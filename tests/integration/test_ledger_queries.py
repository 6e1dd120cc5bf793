"""What an operator sees in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from sqlite3 import Cursor

import pytest
from sqlalchemy import Engine, event

from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.domain.assessment import Note
from dicom_node.domain.delivery import Answer, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState, Stage
from dicom_node.domain.retry import RetryAt
from tests.builders.exams import (
    LEASE_SECONDS,
    WAY,
    answer,
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


def test_the_journal_tells_an_exams_journey_with_times(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    begun = clock.now()
    exam_id, _ = ledger.record_instance(instance())
    for stage in WAY:
        clock.advance(1)
        job = claim_one(ledger, stage)
        clock.advance(1)
        if stage is Stage.DELIVER:
            ledger.record_delivery(job, answer(exam_id, "pacs", verdict=Verdict.STORED))
        complete(ledger, job)
    journal = operator.exam_details(exam_id).journal
    assert [(line.event, (line.at - begun).total_seconds()) for line in journal] == [
        ("received", 0),
        ("claimed", 1),
        ("screened", 2),
        ("claimed", 3),
        ("assessed", 4),
        ("claimed", 5),
        ("reported", 6),
        ("claimed", 7),
        ("answered", 8),
        ("delivered", 8),
    ]
    assert journal[1].detail == "job=1 stage=screen attempt=1 owner=worker"
    assert journal[4].detail == "job=2 stage=infer attempt=1 model=boneage-test@1.0.0"
    first = report_objects(exam_id)[0].sop_instance_uid
    assert journal[8].detail == (
        "job=4 stage=deliver attempt=1 destination=pacs "
        f"object={first} status=0x0000 verdict=stored"
    )


def test_the_journal_tells_what_went_wrong(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    exam_id, _ = ledger.record_instance(instance())
    claim_one(ledger, Stage.SCREEN)
    clock.advance(LEASE_SECONDS)
    job = claim_one(ledger, Stage.SCREEN)
    again = RetryAt(run_after=clock.now(), fault=Fault.STORAGE_UNAVAILABLE, detail="free text")
    ledger.fail(job, again)
    park(ledger)
    operator.retry_job(job.job_id)
    operator.park_job(job.job_id, "wait")
    operator.discard_job(job.job_id, "not ours")
    journal = operator.exam_details(exam_id).journal
    assert [line.event for line in journal if line.event != "claimed"] == [
        "received",
        "lease_expired",
        "retry_later",
        "parked",
        "operator_retried",
        "operator_parked",
        "operator_discarded",
    ]
    assert any("fault=storage_unavailable" in line.detail for line in journal)
    assert not any("free text" in line.detail for line in journal)


def test_the_journal_says_that_nothing_was_to_deliver(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER, destinations=())
    assert operator.exam_details(exam_id).journal[-1].event == "nothing_to_deliver"


def test_the_journal_names_the_exam_that_content_conflicts_with(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    first, _ = ledger.record_instance(instance())
    second, _ = ledger.record_instance(instance(content="changed"))
    (line,) = operator.exam_details(second).journal
    assert (line.event, line.detail) == ("conflict_received", f"with_exam={first}")
    (job,) = operator.exam_details(second).jobs
    assert (job.state, job.fault) == (JobState.PARKED, Fault.CONFLICTING_CONTENT)


def test_the_notes_of_an_exam_are_those_of_its_report(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_id = exam_before(ledger, Stage.SCREEN)
    assert operator.exam_details(exam_id).notes == ()
    complete(ledger, claim_one(ledger, Stage.SCREEN))
    assert operator.exam_details(exam_id).notes == eligibility().notes
    two_hands = replace(prediction(), findings=(Note.TWO_HANDS_LEFT_ASSESSED,))
    ledger.complete_infer(claim_one(ledger, Stage.INFER), two_hands)
    assert operator.exam_details(exam_id).notes == (
        Note.VIEW_UNSTATED,
        Note.TWO_HANDS_LEFT_ASSESSED,
    )


def test_exam_details_hold_everything_but_the_bytes(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    refused = answer(exam_id, "pacs", status=0xA700, verdict=Verdict.TRY_AGAIN)
    ledger.record_delivery(claim_one(ledger, Stage.DELIVER), refused)
    details = operator.exam_details(exam_id)
    assert details.exam == ledger.exam(exam_id)
    assert details.eligibility == eligibility()
    assert details.prediction == prediction()
    assert [(made.kind, made.sop_instance_uid, made.size_bytes) for made in details.reports] == [
        (made.kind, made.sop_instance_uid, len(made.encoded)) for made in report_objects(exam_id)
    ]
    (delivery,) = details.deliveries
    assert (delivery.destination, delivery.status) == ("pacs", 0xA700)
    assert (delivery.verdict, delivery.answered_at) == (Verdict.TRY_AGAIN, clock.now())
    assert [(job.stage, job.state) for job in details.jobs] == [
        (Stage.SCREEN, JobState.DONE),
        (Stage.INFER, JobState.DONE),
        (Stage.REPORT, JobState.DONE),
        (Stage.DELIVER, JobState.LEASED),
    ]


def test_the_exams_of_a_sop_instance_are_found(ledger: SqlLedger, operator: OperatorLedger) -> None:
    ledger.record_instance(instance(1))
    first, _ = ledger.record_instance(instance(2))
    second, _ = ledger.record_instance(instance(2, content="changed"))
    assert operator.exam_ids(instance(2).sop_instance_uid) == [first, second]
    assert operator.exam_ids("1.2.3") == []


def test_an_unknown_exam_is_a_key_error(operator: OperatorLedger) -> None:
    with pytest.raises(KeyError):
        operator.exam_details(7)


def test_exams_are_listed_newest_first_with_what_is_open(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_before(ledger, Stage.INFER, number=1)
    ledger.record_instance(instance(2))
    ledger.complete_ignored(
        claim_one(ledger, Stage.SCREEN), Reason.OTHER_MODALITY, study_instance_uid="1.2"
    )
    ledger.record_instance(instance(3))
    newest, ignored, waiting = operator.exams(limit=10)
    assert [newest.exam_id, ignored.exam_id, waiting.exam_id] == [3, 2, 1]
    assert (ignored.outcome, ignored.reason) == (Outcome.IGNORED, Reason.OTHER_MODALITY)
    assert ignored.open_jobs == ()
    assert [(job.stage, job.state) for job in waiting.open_jobs] == [(Stage.INFER, JobState.QUEUED)]
    assert waiting.received_at == instance().received_at
    assert (waiting.institution_id, waiting.calling_ae_title) == ("hospital-1", "MODALITY")
    assert [exam.exam_id for exam in operator.exams(limit=2)] == [3, 2]
    assert operator.exams(limit=9, outcome=Outcome.IGNORED) == [ignored]
    assert operator.exams(limit=9, outcome=Outcome.ASSESSED) == []


def test_jobs_are_listed_newest_first_and_by_state(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_before(ledger, Stage.REPORT)
    assert [job.stage for job in operator.jobs(limit=2)] == [Stage.REPORT, Stage.INFER]
    (queued,) = operator.jobs(limit=9, state=JobState.QUEUED)
    assert queued.stage is Stage.REPORT
    assert operator.jobs(limit=9, state=JobState.PARKED) == []


def test_queues_outcomes_and_ages_are_counted(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    assert operator.queue_depths() == {}
    assert operator.oldest_job_seconds() == {}
    assert operator.outcome_counts() == {}
    exam_before(ledger, Stage.INFER, number=1)
    clock.advance(40)
    ledger.record_instance(instance(2))
    ledger.record_instance(instance(3))
    ledger.record_instance(instance(3, content="changed"))
    clock.advance(2)
    ledger.claim([Stage.SCREEN], owner="w", lease_seconds=LEASE_SECONDS)
    assert operator.queue_depths() == {
        (Stage.INFER, JobState.QUEUED): 1,
        (Stage.SCREEN, JobState.LEASED): 1,
        (Stage.SCREEN, JobState.QUEUED): 1,
        (Stage.SCREEN, JobState.PARKED): 1,
    }
    assert operator.oldest_job_seconds() == {Stage.INFER: 42.0, Stage.SCREEN: 2.0}
    assert operator.oldest_parked_job_seconds() == {Stage.SCREEN: 2.0}
    assert operator.outcome_counts() == {(Outcome.PENDING, None): 4}


def test_retries_do_not_make_a_waiting_job_younger_and_parked_ones_do_not_count(
    ledger: SqlLedger, operator: OperatorLedger, clock: ManualClock
) -> None:
    ledger.record_instance(instance())
    clock.advance(30)
    run_after = clock.now() + timedelta(seconds=10)
    outage = RetryAt(run_after=run_after, fault=Fault.STORAGE_UNAVAILABLE, detail="")
    ledger.fail(claim_one(ledger, Stage.SCREEN), outage)
    assert operator.oldest_job_seconds() == {Stage.SCREEN: 30.0}
    clock.advance(10)
    park(ledger)
    assert operator.oldest_job_seconds() == {}


def test_outcomes_are_counted_by_reason(ledger: SqlLedger, operator: OperatorLedger) -> None:
    for number in range(3):
        ledger.record_instance(instance(number))
        reason = Reason.SEX_MISSING if number else Reason.IMAGE_BLANK
        ledger.complete_not_assessed(
            claim_one(ledger, Stage.SCREEN), reason, study_instance_uid="1.2", report=False
        )
    assert operator.outcome_counts() == {
        (Outcome.NOT_ASSESSED, Reason.IMAGE_BLANK): 1,
        (Outcome.NOT_ASSESSED, Reason.SEX_MISSING): 2,
    }


def test_the_exam_of_a_job_is_found(ledger: SqlLedger, operator: OperatorLedger) -> None:
    exam_id, _ = ledger.record_instance(instance())
    [job] = operator.jobs(limit=5)
    assert operator.exam_of_job(job.job_id) == operator.exam(exam_id)
    with pytest.raises(KeyError):
        operator.exam_of_job(job.job_id + 1)
    with pytest.raises(KeyError):
        operator.exam(exam_id + 1)


def test_the_contents_of_all_instances_are_known(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    received = [instance(1), instance(2), instance(2, content="changed")]
    for one in received:
        ledger.record_instance(one)
    assert operator.known_contents() == {one.content_sha256 for one in received}


def test_watching_the_queues_reads_open_jobs_only(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    ledger.record_instance(instance())
    plans: list[str] = []

    def look(_1: object, cursor: Cursor, sql: str, values: tuple[object, ...], *_: object) -> None:
        if sql.startswith("SELECT"):
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            plans.extend(row[3] for row in cursor.fetchall())

    event.listen(Engine, "before_cursor_execute", look)
    try:
        operator.queue_depths()
        operator.oldest_job_seconds()
        operator.oldest_parked_job_seconds()
        ledger.open_destinations()
        operator.exams(limit=5)
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    on_jobs = [plan for plan in plans if " jobs" in plan]
    assert len(on_jobs) == 5
    assert all("INDEX jobs_" in plan for plan in on_jobs)


def test_an_answer_tells_as_what_the_object_was_sent(
    ledger: SqlLedger, operator: OperatorLedger
) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    job = claim_one(ledger, Stage.DELIVER)
    plain = answer(exam_id, "pacs", verdict=Verdict.STORED)
    other = Answer(status=0, sent_sop_class_uid="1.2.22", sent_sop_instance_uid="2.25.7")
    ledger.record_delivery(job, replace(plain, answer=other))
    details = operator.exam_details(exam_id)
    [delivery] = details.deliveries
    assert (delivery.sent_sop_class_uid, delivery.sent_sop_instance_uid) == ("1.2.22", "2.25.7")
    assert details.journal[-1].detail.endswith("as=2.25.7 sop_class=1.2.22")
