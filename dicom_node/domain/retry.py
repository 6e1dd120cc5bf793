"""What to do after a failed attempt: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.domain.job import Job

BASE_SECONDS = 5.0
CAP_SECONDS = 900.0
MAX_AGE = timedelta(days=7)
MIN_ATTEMPTS = 100
"""Before a job is given up for its age: half a day of attempts, which no clock can feign."""
MAX_CRASHES = 3
_REFUSALS_BEFORE_PARKING = 3


@dataclass(frozen=True, kw_only=True)
class RetryAt:
    """Queue the job again, not before ``run_after``."""

    run_after: datetime
    fault: Fault
    detail: str


@dataclass(frozen=True, kw_only=True)
class Park:
    """Leave the job for a person."""

    fault: Fault
    detail: str


def backoff_seconds(attempt: int, fraction: float) -> float:
    """Full jitter: a share ``fraction`` in 0..1 of an exponential delay that is capped at 15
    minutes."""
    return fraction * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempt, 20))


def after_failure(job: Job, error: Exception, *, now: datetime, fraction: float) -> RetryAt | Park:
    """Decide by the error's kind, the job's age and its attempts. ``fraction`` is a uniform random
    number in 0..1.

    Refusals by a destination are tried again, because some archives refuse while they restart: the
    first always, whatever went before it, and then up to three attempts.
    A job is given up when it is seven days old and has been tried a hundred times: a clock that
    jumps ahead makes it old at once.
    Errors that are not ours are parked: the one broad except of the worker ends here.
    """
    if not isinstance(error, NodeError):
        return Park(fault=Fault.UNEXPECTED, detail=type(error).__name__)
    if isinstance(error, Permanent) and not _may_be_a_passing_refusal(job, error):
        return Park(fault=error.fault, detail=str(error))
    if now - job.created_at > MAX_AGE and job.attempt >= MIN_ATTEMPTS:
        return Park(fault=error.fault, detail=f"given up after {MAX_AGE.days} days: {error}")
    delay = timedelta(seconds=backoff_seconds(job.attempt, fraction))
    again_at = error.again_at if isinstance(error, Transient) else None
    return RetryAt(run_after=again_at or now + delay, fault=error.fault, detail=str(error))


def _may_be_a_passing_refusal(job: Job, error: Permanent) -> bool:
    if error.fault is not Fault.DESTINATION_REFUSED:
        return False
    is_first = job.fault is not Fault.DESTINATION_REFUSED
    return is_first or job.attempt < _REFUSALS_BEFORE_PARKING
