"""The loop that runs jobs: claim, run, settle. It holds the node's one broad ``except``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicom_node.domain.errors import LeaseLost, Transient
from dicom_node.domain.job import Job, Stage
from dicom_node.domain.retry import Park, after_failure
from dicom_node.logs import log
from dicom_node.metrics import job_parked, stage_finished
from dicom_node.ports import Clock, Ledger

LEASE_SECONDS = 240.0
"""Longer than the longest honest attempt: a delivery that waits the longest timeout of a
destination (30 s) for a dead association, the connection, a new one and each of four objects."""
_IDLE_SECONDS = 1.0


class Bell(Protocol):
    """Wakes the worker when there may be work; a missed ring costs at most the wait's limit."""

    def wait(self, seconds: float) -> None:
        """Return after a ring or after ``seconds``."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How many INFER jobs run together at most, and how long the first, once it is prepared, waits
    for company to come and to be prepared."""

    max: int = 1
    wait_seconds: float = 0.0


Handler = Callable[[Job], None]
BatchHandler = Callable[[Iterable[Job]], list[Exception | None]]


class Worker:
    """Runs the jobs of some stages, one after the other, until told to stop.

    ``done``: called after each finished job, to wake whoever does the next stage. ``may_work``:
    asked before each step; while it says no, nothing is claimed.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        owner: str,
        bell: Bell,
        handlers: Mapping[Stage, Handler],
        infer: BatchHandler | None = None,
        batch: Batch | None = None,
        destination: str | None = None,
        done: Callable[[Job], None],
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._owner = owner
        self._bell = bell
        self._handlers = handlers
        self._infer = infer
        self._batch = batch or Batch()
        self._destination = destination
        self._done = done
        self._may_work = may_work
        self._stages = (*handlers, *([Stage.INFER] if infer else []))
        self._turned_at = time.monotonic()

    def goes_on(self) -> bool:
        """Whether the loop came round within the time of a lease: what takes longer hangs."""
        return time.monotonic() - self._turned_at < LEASE_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; the job in hand is finished first."""
        while not stop.is_set():
            self._turned_at = time.monotonic()
            try:
                worked = self._may_work() and self.step()
            except Transient as error:
                log("ledger_unavailable", fault=error.fault, error=error)
                stop.wait(_IDLE_SECONDS)
                continue
            if not worked:
                self._bell.wait(_IDLE_SECONDS)

    def step(self) -> bool:
        """Claim and run what is due; False when nothing was."""
        jobs = self._claim(self._stages, limit=1)
        if not jobs:
            return False
        if jobs[0].stage is Stage.INFER:
            self._run_batch(jobs)
        else:
            self._run_one(jobs[0])
        return True

    def _claim(self, stages: Sequence[Stage], *, limit: int) -> list[Job]:
        return self._ledger.claim(
            stages,
            owner=self._owner,
            lease_seconds=LEASE_SECONDS,
            limit=limit,
            destination=self._destination,
        )

    def _company(self, jobs: list[Job]) -> Iterator[Job]:
        """The first of ``jobs``, then what is claimed beside it: one at a time, each when the one
        before is prepared, so that none is kept from an idle worker. ``jobs`` grows with them."""
        yield jobs[0]
        deadline = time.monotonic() + self._batch.wait_seconds
        while len(jobs) < self._batch.max and (left := deadline - time.monotonic()) > 0:
            try:
                more = self._claim([Stage.INFER], limit=1)
            except Transient:
                break  # what is leased already runs
            if more:
                jobs += more
                yield jobs[-1]
            else:
                self._bell.wait(left)

    def _run_one(self, job: Job) -> None:
        begun = time.monotonic()
        error: Exception | None = None
        try:
            self._handlers[job.stage](job)
        except Exception as caught:  # noqa: BLE001 the one broad except: it parks the job
            error = caught
        self._settle(job, error, time.monotonic() - begun)

    def _run_batch(self, jobs: list[Job]) -> None:
        assert self._infer is not None
        begun = time.monotonic()
        try:
            errors = self._infer(self._company(jobs))
        except Exception as caught:  # noqa: BLE001 as above, for a whole batch
            errors = [caught] * len(jobs)
        seconds = (time.monotonic() - begun) / len(jobs)
        for job, error in zip(jobs, errors, strict=True):
            self._settle(job, error, seconds)

    def _settle(self, job: Job, error: Exception | None, seconds: float) -> None:
        result = self._result(job, error, seconds)
        stage_finished(job.stage, result, seconds)
        if result == "done":
            self._done(job)

    def _result(self, job: Job, error: Exception | None, seconds: float) -> str:
        if error is None:
            log("job_done", **_facts(job), seconds=seconds)
            return "done"
        if isinstance(error, LeaseLost):
            log("lease_lost", **_facts(job))
            return "lost"
        try:
            return self._fail(job, error)
        except LeaseLost:
            log("lease_lost", **_facts(job))
            return "lost"
        except Transient as unavailable:
            # The lease stays and runs out: the job is then tried again.
            log("ledger_unavailable", fault=unavailable.fault, error=unavailable)
            return "lost"

    def _fail(self, job: Job, error: Exception) -> str:
        now = self._clock.now()
        decision = after_failure(job, error, now=now, fraction=self._clock.fraction())
        self._ledger.fail(job, decision)
        if isinstance(decision, Park):
            log("job_parked", **_facts(job), fault=decision.fault, error=error)
            job_parked(job.stage, decision.fault)
            return "parked"
        delay = (decision.run_after - now).total_seconds()
        log("job_retry", **_facts(job), fault=decision.fault, error=error, seconds=delay)
        return "retry"


def _facts(job: Job) -> dict[str, object]:
    return {
        "exam_id": job.exam_id,
        "job_id": job.job_id,
        "stage": job.stage,
        "attempt": job.attempt,
        "destination": job.destination,
    }
