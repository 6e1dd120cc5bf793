"""Random histories of workers, operators and time against the real ledger."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import (
    TRANSITIONS,
    ForbiddenTransition,
    Job,
    JobEvent,
    JobState,
    Stage,
)
from dicom_node.domain.retry import MAX_CRASHES, Park, RetryAt
from tests.builders.exams import LEASE_SECONDS, complete, instance
from tests.fakes.clock import ManualClock

OPEN = {JobState.QUEUED, JobState.LEASED, JobState.PARKED}
OWNERS = ("worker-1", "worker-2")


@cache
def empty_ledger() -> Path:
    """A migrated file to copy for every history."""
    path = Path(tempfile.mkdtemp()) / "ledger.sqlite"
    migrate(path)
    return path


def not_assessed(ledger: SqlLedger, job: Job) -> None:
    ledger.complete_not_assessed(
        job, Reason.SEX_MISSING, study_instance_uid="1.2", report=job.stage is Stage.SCREEN
    )


def retry_soon(ledger: SqlLedger, job: Job) -> None:
    run_after = job.run_after + timedelta(seconds=20)
    ledger.fail(job, RetryAt(run_after=run_after, fault=Fault.STORAGE_UNAVAILABLE, detail=""))


def succeed(ledger: SqlLedger, job: Job) -> None:
    complete(ledger, job, destinations=("archive", "pacs"))


def park(ledger: SqlLedger, job: Job) -> None:
    ledger.fail(job, Park(fault=Fault.UNEXPECTED, detail=""))


WRITES: list[Callable[[SqlLedger, Job], None]] = [
    succeed,
    succeed,
    not_assessed,
    retry_soon,
    park,
]


class LedgerHistory(RuleBasedStateMachine):
    """The model knows only who holds which lease; the rest is checked as invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(empty_ledger(), self.folder / "ledger.sqlite")
        self.clock = ManualClock()
        self.ledger = SqlLedger(self.folder / "ledger.sqlite", self.clock)
        self.operator = OperatorLedger(self.folder / "ledger.sqlite", self.clock)
        self.tokens: list[Job] = []
        self.holders: dict[int, tuple[int, str, datetime]] = {}
        self.before: dict[int, Job] = {}

    def teardown(self) -> None:
        self.ledger.close()
        self.operator.close()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(1, 3), content=st.sampled_from(["a", "b"]))
    def receive(self, number: int, content: str) -> None:
        self.ledger.record_instance(instance(number, content=content))

    @rule(seconds=st.sampled_from([1.0, 20.0, LEASE_SECONDS]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        stages=st.just(set(Stage)) | st.sets(st.sampled_from(Stage), min_size=1),
        owner=st.sampled_from(OWNERS),
        limit=st.integers(1, 4),
    )
    def claim(self, stages: set[Stage], owner: str, limit: int) -> None:
        now = self.clock.now()
        self.holders = {job: held for job, held in self.holders.items() if held[2] > now}
        jobs = self.ledger.claim(
            list(stages), owner=owner, lease_seconds=LEASE_SECONDS, limit=limit
        )
        assert len(jobs) <= limit
        for job in jobs:
            assert job.stage in stages
            assert job.run_after <= now
            assert job.job_id not in self.holders
            expires_at = now + timedelta(seconds=LEASE_SECONDS)
            self.holders[job.job_id] = (job.attempt, owner, expires_at)
        self.tokens += jobs

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), write=st.sampled_from(WRITES))
    def write(self, data: st.DataObject, write: Callable[[SqlLedger, Job], None]) -> None:
        """By the present owner or by a late one."""
        job = data.draw(st.sampled_from(self.tokens))
        if self.holders.get(job.job_id, (0,))[0] != job.attempt:
            with pytest.raises(LeaseLost):
                write(self.ledger, job)
            return
        write(self.ledger, job)
        del self.holders[job.job_id]

    def late_tokens(self) -> list[Job]:
        """Old leases of jobs that somebody else holds now."""
        return [
            job
            for job in self.tokens
            if self.holders.get(job.job_id, (job.attempt,))[0] != job.attempt
        ]

    @precondition(lambda self: self.late_tokens())
    @rule(data=st.data(), write=st.sampled_from(WRITES))
    def write_late(self, data: st.DataObject, write: Callable[[SqlLedger, Job], None]) -> None:
        with pytest.raises(LeaseLost):
            write(self.ledger, data.draw(st.sampled_from(self.late_tokens())))

    @rule(owner=st.sampled_from(OWNERS))
    def restart(self, owner: str) -> None:
        mine = [job for job, held in self.holders.items() if held[1] == owner]
        assert self.ledger.expire_leases(owner) == len(mine)
        for job in mine:
            del self.holders[job]

    @precondition(lambda self: self.before)
    @rule(
        data=st.data(),
        step=st.sampled_from([JobEvent.RETRY, JobEvent.RETRY, JobEvent.PARK, JobEvent.DISCARD]),
    )
    def operate(self, data: st.DataObject, step: JobEvent) -> None:
        job = self.before[data.draw(st.sampled_from(sorted(self.before)))]
        allowed = (job.state, step) in TRANSITIONS
        try:
            self._operate(job.job_id, step)
        except ForbiddenTransition:
            assert not allowed
            return
        assert allowed
        self.holders.pop(job.job_id, None)

    def _operate(self, job_id: int, step: JobEvent) -> None:
        if step is JobEvent.RETRY:
            self.operator.retry_job(job_id)
        elif step is JobEvent.PARK:
            self.operator.park_job(job_id, "reason")
        else:
            self.operator.discard_job(job_id, "reason")

    @invariant()
    def jobs_are_sound(self) -> None:
        jobs = {job.job_id: job for job in self.operator.jobs(limit=1000)}
        open_keys = Counter(
            (job.exam_id, job.stage, job.destination) for job in jobs.values() if job.state in OPEN
        )
        assert all(count == 1 for count in open_keys.values())
        leased = {job.job_id: job.attempt for job in jobs.values() if job.state is JobState.LEASED}
        assert leased == {job: held[0] for job, held in self.holders.items()}
        for job in jobs.values():
            assert job.crashes < MAX_CRASHES or job.state in {JobState.PARKED, JobState.DISCARDED}
        self._check_history(jobs)
        self._check_exams(jobs)
        self.before = jobs

    def _check_history(self, jobs: dict[int, Job]) -> None:
        for job_id, before in self.before.items():
            assert jobs[job_id].attempt >= before.attempt
            if before.state not in OPEN:
                assert jobs[job_id] == before

    def _check_exams(self, jobs: dict[int, Job]) -> None:
        """No exam is forgotten: it has an outcome, an open job, or a person gave it up."""
        unfinished = {job.exam_id for job in jobs.values() if job.state in OPEN}
        given_up = {job.exam_id for job in jobs.values() if job.state is JobState.DISCARDED}
        reported = {job.exam_id for job in jobs.values() if job.stage is Stage.DELIVER}
        for exam in self.operator.exams(limit=1000):
            known = unfinished | given_up
            if exam.outcome is Outcome.ASSESSED:
                known |= reported
            assert exam.exam_id in known or exam.outcome is Outcome.NOT_ASSESSED


TestLedgerHistory = LedgerHistory.TestCase
TestLedgerHistory.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,  # every step waits for the disk
    suppress_health_check=[HealthCheck.too_slow],
)
