"""The stage CONFIRM on a real ledger: what is asked, what is sent again, what is parked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import OperatorLedger, SqlCommitments, SqlLedger
from dicom_node.domain.commitment import (
    ASK_AGAIN,
    MAX_LOSSES,
    TIME_TO_INDEX,
    CommitmentResult,
    Evidence,
    FailureReason,
    Proof,
    SentObject,
)
from dicom_node.domain.errors import Fault, LeaseLost, Permanent, Transient
from dicom_node.domain.job import JobState, Stage
from dicom_node.domain.retry import after_failure
from dicom_node.stages.confirm import Confirm
from tests.builders.commitment import deliver, encoded_report, reported_exam
from tests.builders.exams import claim, claim_one
from tests.fakes.clock import ManualClock

REPORT = encoded_report()
UID = REPORT.sop_instance_uid


@dataclass(kw_only=True)
class Destination:
    """Answers as told, and remembers what it was asked."""

    says: Mapping[str, Evidence] | Exception = field(default_factory=dict)
    asked: list[tuple[str, Sequence[SentObject]]] = field(default_factory=list)

    def verify(
        self, destination: str, sent: Sequence[SentObject], *, transaction_uid: str
    ) -> Mapping[str, Evidence]:
        assert destination == "pacs"
        self.asked.append((transaction_uid, sent))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@dataclass(kw_only=True)
class Site:
    ledger: SqlLedger
    operator: OperatorLedger
    commitments: SqlCommitments
    clock: ManualClock
    pacs: Destination
    proof: Proof

    def run(self) -> None:
        """Run the one due job(CONFIRM) as a worker does."""
        job = claim_one(self.ledger, Stage.CONFIRM)
        stage = Confirm(
            commitments=self.commitments,
            verifier=self.pacs,
            clock=self.clock,
            proof=lambda _: self.proof,
        )
        try:
            stage(job)
        except (Transient, Permanent) as error:
            decision = after_failure(job, error, now=self.clock.now(), fraction=1.0)
            self.ledger.fail(job, decision)
            raise

    def result(self, reason: int | None = None, *, request: int = -1) -> CommitmentResult:
        """The destination's answer to a request, the last one unless told."""
        transaction_uid, sent = self.pacs.asked[request]
        references = tuple(item.reference for item in sent)
        failed = [] if reason is None else [(item, reason) for item in references]
        return CommitmentResult(
            transaction_uid=transaction_uid,
            kept=references if reason is None else (),
            failed=tuple(failed),
        )

    def states(self, stage: Stage) -> list[JobState]:
        jobs = self.operator.jobs(limit=50)
        return [job.state for job in reversed(jobs) if job.stage is stage]


@pytest.fixture
def site(
    ledger: SqlLedger, operator: OperatorLedger, tmp_path: Path, clock: ManualClock
) -> Iterator[Site]:
    commitments = SqlCommitments(tmp_path / "ledger.sqlite", clock)
    yield Site(
        ledger=ledger,
        operator=operator,
        commitments=commitments,
        clock=clock,
        pacs=Destination(),
        proof=Proof.COMMITMENT,
    )
    commitments.close()


@pytest.fixture
def exam_id(site: Site) -> int:
    exam = reported_exam(site.ledger, REPORT)
    deliver(site.ledger, REPORT)
    return exam


def pending(site: Site) -> None:
    with pytest.raises(Transient) as caught:
        site.run()
    assert caught.value.fault is Fault.COMMITMENT_PENDING


def begun(site: Site, exam_id: int) -> datetime:
    """When the delivery was to be proven."""
    [job] = [j for j in site.operator.exam_details(exam_id).jobs if j.stage is Stage.CONFIRM]
    return job.created_at


def events(site: Site, exam_id: int) -> list[str]:
    return [entry.event for entry in site.operator.exam_details(exam_id).journal]


def test_a_result_closes_the_delivery(site: Site, exam_id: int) -> None:
    pending(site)
    assert [item.reference.sop_instance_uid for item in site.pacs.asked[0][1]] == [UID]
    assert claim(site.ledger, Stage.CONFIRM) == []
    assert site.commitments.record_result(site.result())
    site.run()
    assert site.states(Stage.CONFIRM) == [JobState.DONE]
    [delivery] = site.operator.exam_details(exam_id).deliveries
    assert delivery.evidence is Evidence.KEPT
    assert delivery.evidence_at == site.clock.now()
    assert len(site.pacs.asked) == 1
    assert events(site, exam_id)[-4:] == ["retry_later", "evidence", "claimed", "confirmed"]


def test_an_object_is_asked_for_as_it_was_sent(site: Site) -> None:
    exam = reported_exam(site.ledger, REPORT)
    deliver(site.ledger, REPORT, sent_as="1.2.3.4")
    pending(site)
    [asked] = site.pacs.asked[0][1]
    assert asked.reference.sop_instance_uid == "1.2.3.4"
    assert asked.made_sop_instance_uid == UID
    assert site.commitments.record_result(site.result())
    site.run()
    assert site.operator.exam_details(exam).deliveries[0].evidence is Evidence.KEPT


def test_a_silent_destination_costs_an_attempt_an_hour(site: Site, exam_id: int) -> None:
    for _ in range(3):
        pending(site)
        site.clock.advance(60)
    assert claim(site.ledger, Stage.CONFIRM) == []
    site.clock.advance(ASK_AGAIN.total_seconds() - 180)
    pending(site)
    assert len(site.pacs.asked) == 2
    assert site.commitments.record_result(site.result())
    site.run()


def test_without_an_answer_it_is_asked_again_after_an_hour_only(site: Site, exam_id: int) -> None:
    pending(site)
    site.clock.advance(timedelta(minutes=30).total_seconds())
    pending(site)
    assert len(site.pacs.asked) == 1
    site.clock.advance(ASK_AGAIN.total_seconds())
    pending(site)
    first, second = (transaction for transaction, _ in site.pacs.asked)
    assert first != second
    assert site.commitments.record_result(site.result(request=0))  # late, and still good
    site.run()
    assert site.states(Stage.CONFIRM) == [JobState.DONE]


@pytest.mark.parametrize(
    "reason", [FailureReason.PROCESSING_FAILURE, FailureReason.RESOURCE_LIMITATION]
)
def test_a_passing_failure_is_asked_again_in_its_own_time(
    site: Site, exam_id: int, reason: FailureReason
) -> None:
    pending(site)
    assert site.commitments.record_result(site.result(reason))
    assert claim(site.ledger, Stage.CONFIRM) == []
    site.clock.advance(60)
    pending(site)
    assert len(site.pacs.asked) == 2
    assert site.states(Stage.DELIVER) == [JobState.DONE]


def test_what_is_lost_is_delivered_again(site: Site, exam_id: int) -> None:
    pending(site)
    site.clock.advance(TIME_TO_INDEX.total_seconds())
    site.commitments.record_result(site.result(FailureReason.NO_SUCH_OBJECT_INSTANCE))
    site.run()
    assert site.states(Stage.CONFIRM) == [JobState.DONE]
    assert site.states(Stage.DELIVER) == [JobState.DONE, JobState.QUEUED]
    assert site.ledger.delivered(exam_id, "pacs") == {}
    deliver(site.ledger, REPORT)
    assert site.ledger.delivered(exam_id, "pacs").keys() == {UID}
    [delivery] = site.operator.exam_details(exam_id).deliveries
    assert (delivery.evidence, delivery.losses) == (None, 1)


def test_a_destination_gets_time_to_find_an_object(site: Site, exam_id: int) -> None:
    site.proof, site.pacs.says = Proof.QUERY, {UID: Evidence.LOST}
    pending(site)
    site.clock.advance(60)
    pending(site)
    site.pacs.says = {UID: Evidence.KEPT}
    site.clock.advance(60)
    site.run()
    assert site.states(Stage.DELIVER) == [JobState.DONE]
    assert site.states(Stage.CONFIRM) == [JobState.DONE]


def test_what_is_lost_again_and_again_is_parked_until_a_person_tries_again(
    site: Site, exam_id: int
) -> None:
    site.proof, site.pacs.says = Proof.QUERY, {UID: Evidence.LOST}
    for _ in range(MAX_LOSSES):
        site.clock.advance(TIME_TO_INDEX.total_seconds())
        site.run()
        deliver(site.ledger, REPORT)
    site.clock.advance(TIME_TO_INDEX.total_seconds())
    with pytest.raises(Permanent) as caught:
        site.run()
    assert caught.value.fault is Fault.REPORT_NOT_KEPT
    [parked] = site.operator.jobs(limit=5, state=JobState.PARKED)
    assert f"job retry {parked.job_id}" in parked.detail
    site.operator.retry_job(parked.job_id)
    site.run()
    assert site.states(Stage.DELIVER)[-1] is JobState.QUEUED


def test_one_of_two_objects_that_is_lost_waits_for_the_other(site: Site) -> None:
    other = encoded_report()
    reported_exam(site.ledger, REPORT, other)
    deliver(site.ledger, REPORT, other)
    site.proof = Proof.QUERY
    site.pacs.says = {UID: Evidence.LOST, other.sop_instance_uid: Evidence.KEPT}
    site.clock.advance(TIME_TO_INDEX.total_seconds())
    site.run()
    assert site.states(Stage.DELIVER)[-1] is JobState.QUEUED
    job = claim_one(site.ledger, Stage.DELIVER)
    assert site.ledger.delivered(job.exam_id, "pacs").keys() == {other.sop_instance_uid}


def test_a_destination_that_is_not_asked_any_more_is_closed_by_its_status(
    site: Site, exam_id: int
) -> None:
    site.proof = Proof.STATUS
    site.run()
    assert site.states(Stage.CONFIRM) == [JobState.DONE]
    assert site.pacs.asked == []


def test_a_destination_that_does_not_answer_is_asked_again(site: Site, exam_id: int) -> None:
    site.proof = Proof.QUERY
    site.pacs.says = Transient(Fault.DESTINATION_UNAVAILABLE, "away")
    with pytest.raises(Transient, match="away"):
        site.run()
    assert site.states(Stage.CONFIRM) == [JobState.QUEUED]
    assert site.ledger.hurry("pacs") == 1
    site.pacs.says = {UID: Evidence.KEPT}
    site.run()


def test_after_seven_days_without_an_answer_it_is_parked(site: Site, exam_id: int) -> None:
    for _ in range(7 * 24 + 3):
        pending(site)
        site.clock.advance(3600)
        if site.states(Stage.CONFIRM) == [JobState.PARKED]:
            break
    assert site.states(Stage.CONFIRM) == [JobState.PARKED]
    assert site.clock.now() - begun(site, exam_id) >= timedelta(days=7)


def test_a_result_that_nobody_asked_for_changes_nothing(site: Site, exam_id: int) -> None:
    pending(site)
    stranger = CommitmentResult(transaction_uid="1.2.3", kept=site.result().kept, failed=())
    assert not site.commitments.record_result(stranger)
    assert site.operator.exam_details(exam_id).deliveries[0].evidence is None


def test_a_result_cannot_speak_for_another_exam(site: Site, exam_id: int) -> None:
    pending(site)
    other = encoded_report()
    second = reported_exam(site.ledger, other, number=2)
    deliver(site.ledger, other)
    transaction_uid, _ = site.pacs.asked[0]
    pending(site)
    forged = CommitmentResult(transaction_uid=transaction_uid, kept=site.result().kept, failed=())
    assert site.commitments.record_result(forged)
    assert site.operator.exam_details(second).deliveries[0].evidence is None


@pytest.mark.parametrize(
    "write",
    [
        lambda commitments, job: commitments.ask(job, "1.2"),
        lambda commitments, job: commitments.record(job, {UID: Evidence.KEPT}),
        lambda commitments, job: commitments.complete(job),
        lambda commitments, job: commitments.send_again(job, ()),
    ],
)
def test_a_late_owner_changes_nothing(
    site: Site, exam_id: int, write: Callable[[SqlCommitments, object], None]
) -> None:
    late = claim_one(site.ledger, Stage.CONFIRM)
    site.ledger.expire_leases("worker")
    claim_one(site.ledger, Stage.CONFIRM)
    with pytest.raises(LeaseLost):
        write(site.commitments, late)
    assert site.operator.exam_details(exam_id).deliveries[0].evidence is None


def test_a_result_that_says_too_little_is_no_reason_to_ask_at_once(
    site: Site, exam_id: int
) -> None:
    pending(site)
    empty = CommitmentResult(transaction_uid=site.pacs.asked[0][0], kept=(), failed=())
    assert site.commitments.record_result(empty)
    assert claim(site.ledger, Stage.CONFIRM) == []


def test_a_destination_without_the_service_is_parked_after_three_refusals(
    site: Site, exam_id: int
) -> None:
    site.pacs.says = Permanent(Fault.DESTINATION_REFUSED, "not offered")
    for _ in range(3):
        with pytest.raises(Permanent, match="not offered"):
            site.run()
        site.clock.advance(3600)
    assert site.states(Stage.CONFIRM) == [JobState.PARKED]
    assert len(site.pacs.asked) == 3


def test_waiting_for_proof_is_no_step_of_the_clock(site: Site, exam_id: int) -> None:
    for _ in range(3):
        pending(site)
        site.clock.advance(60)
    assert site.ledger.mend_clock_step() == 0
    assert claim(site.ledger, Stage.CONFIRM) == []
