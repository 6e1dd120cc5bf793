"""The circuit breaker in front of a destination: when it opens, what it lets through, and what it
does when the destination is back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dicom_node.domain.breaker import FAILURES_TO_OPEN, Breaker
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import JobState, Stage
from dicom_node.domain.retry import after_failure
from dicom_node.lane import Lane
from tests.builders.exams import claim_one, complete, exam_before
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger

GONE = Transient(Fault.DESTINATION_UNAVAILABLE, "connection refused")


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.unanswered(at) for _ in range(FAILURES_TO_OPEN)] == [False] * 4 + [True]
    return breaker


def test_five_in_a_row_open_it_and_an_answer_between_does_not() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            assert not breaker.unanswered(0.0)
        breaker.answered()
    assert not breaker.is_open
    assert opened().is_open


def test_probes_go_out_at_growing_distances() -> None:
    breaker, now, sent = opened(), 0.0, []
    while now < 200:
        if breaker.probe_due(now):
            sent.append(now)
            assert not breaker.unanswered(now)
        now += 1.0
    assert sent == [10.0, 30.0, 70.0, 130.0, 190.0]
    breaker.answered()
    assert not breaker.is_open
    assert not breaker.probe_due(500.0)


@dataclass
class Site:
    """A lane over fakes; ``errors``: what the next deliveries raise."""

    clock: ManualClock = field(default_factory=ManualClock)
    errors: list[Exception | None] = field(default_factory=list)
    is_there: bool = False
    probes: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.ledger = InMemoryLedger(self.clock)
        self.lane = Lane(
            "pacs",
            ledger=self.ledger,
            deliver=lambda _: self._deliver(),
            probe=self._ask,
            now=lambda: self.seconds,
        )

    def _deliver(self) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    def _ask(self) -> bool:
        self.probes += 1
        return self.is_there

    def fail(self, error: Exception, times: int) -> None:
        """So many deliveries end with the error."""
        exam_id = exam_before(self.ledger, Stage.DELIVER)
        job = claim_one(self.ledger, Stage.DELIVER)
        assert job.exam_id == exam_id
        for _ in range(times):
            self.errors = [error]
            with pytest.raises(type(error)):
                self.lane(job)


def test_a_silent_destination_is_probed_and_sent_to_again_when_it_answers() -> None:
    site = Site()
    site.fail(GONE, FAILURES_TO_OPEN)
    assert not site.lane.may_send()
    assert site.probes == 0
    site.seconds = 10.0
    assert not site.lane.may_send()
    assert site.probes == 1
    site.seconds = 29.0
    assert not site.lane.may_send()
    assert site.probes == 1
    site.seconds, site.is_there = 31.0, True
    assert site.lane.may_send()
    assert site.lane.may_send()
    assert site.probes == 2


@pytest.mark.parametrize(
    "error",
    [
        Transient(Fault.DESTINATION_BUSY, "out of resources"),
        Transient(Fault.STORAGE_UNAVAILABLE, "the ledger is locked"),
        Permanent(Fault.DESTINATION_REFUSED, "never"),
    ],
)
def test_what_was_answered_or_is_our_own_fault_stops_nothing(error: Exception) -> None:
    site = Site()
    site.fail(error, 3 * FAILURES_TO_OPEN)
    assert site.lane.may_send()
    assert site.probes == 0


def test_an_answer_between_keeps_it_closed() -> None:
    site = Site()
    site.fail(GONE, FAILURES_TO_OPEN - 1)
    site.lane(site.ledger.jobs[1])
    site.errors = [GONE]
    with pytest.raises(Transient):
        site.lane(site.ledger.jobs[1])
    assert site.lane.may_send()


def test_what_waited_is_due_at_once_oldest_first() -> None:
    site = Site()
    jobs = []
    for number in range(1, 4):
        exam_before(site.ledger, Stage.DELIVER, number=number)
        jobs.append(claim_one(site.ledger, Stage.DELIVER))
        site.clock.advance(1)
    assert {job.state for job in jobs} == {JobState.LEASED}
    complete(site.ledger, jobs[1])
    for job in (jobs[2], jobs[0]):
        decision = after_failure(job, GONE, now=site.clock.now(), fraction=1.0)
        site.ledger.fail(job, decision)
    assert site.ledger.claim([Stage.DELIVER], owner="lane", lease_seconds=60) == []
    assert site.ledger.hurry("other") == 0
    assert site.ledger.hurry("pacs") == 2
    due = site.ledger.claim([Stage.DELIVER], owner="lane", lease_seconds=60, limit=5)
    assert [job.job_id for job in due] == [jobs[0].job_id, jobs[2].job_id]


@pytest.mark.parametrize(
    "answer",
    [
        Transient(Fault.DESTINATION_BUSY, "out of resources"),
        Permanent(Fault.DESTINATION_REFUSED, "never"),
    ],
)
def test_a_refusal_is_an_answer(answer: Exception) -> None:
    site = Site()
    site.fail(GONE, FAILURES_TO_OPEN - 1)
    job = site.ledger.jobs[1]
    for error in (answer, GONE):
        site.errors = [error]
        with pytest.raises(type(error)):
            site.lane(job)
    assert site.lane.may_send()


def test_a_ledger_that_fails_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(is_there=True)
    site.fail(GONE, FAILURES_TO_OPEN)
    site.seconds = 11.0

    def fail(_: str) -> int:
        raise Transient(Fault.STORAGE_UNAVAILABLE, "the ledger is locked")

    with monkeypatch.context() as patch:
        patch.setattr(site.ledger, "hurry", fail)
        with pytest.raises(Transient):
            site.lane.may_send()
    assert site.lane.may_send()
    assert site.probes == 2
