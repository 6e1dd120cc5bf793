"""What follows a failed attempt, by the error's kind, the job's age and its attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.domain.retry import (
    BASE_SECONDS,
    CAP_SECONDS,
    MAX_AGE,
    MIN_ATTEMPTS,
    Park,
    RetryAt,
    after_failure,
    backoff_seconds,
)

CREATED = datetime(2026, 3, 1, tzinfo=UTC)
NOW = CREATED + timedelta(hours=1)
OUTAGE = Transient(Fault.DESTINATION_UNAVAILABLE, "no answer from pacs")
REFUSAL = Permanent(Fault.DESTINATION_REFUSED, "pacs refuses")


def job(*, attempt: int = 1, fault: Fault | None = None) -> Job:
    return Job(
        job_id=1,
        exam_id=1,
        stage=Stage.DELIVER,
        destination="pacs",
        state=JobState.LEASED,
        attempt=attempt,
        crashes=0,
        created_at=CREATED,
        run_after=CREATED,
        fault=fault,
    )


@given(attempt=st.integers(0, 10**9), fraction=st.floats(0, 1))
def test_a_delay_lies_between_zero_and_the_cap(attempt: int, fraction: float) -> None:
    assert 0 <= backoff_seconds(attempt, fraction) <= CAP_SECONDS


def test_delays_double_until_the_cap() -> None:
    delays = [backoff_seconds(attempt, 1.0) for attempt in range(10)]
    assert delays[:4] == [BASE_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert delays == sorted(delays)
    assert delays[-1] == CAP_SECONDS


def test_the_fraction_spreads_retries_over_the_whole_delay() -> None:
    assert backoff_seconds(3, 0.25) == backoff_seconds(3, 1.0) / 4


def test_a_transient_error_is_tried_again_with_its_reason() -> None:
    assert after_failure(job(attempt=2), OUTAGE, now=NOW, fraction=0.5) == RetryAt(
        run_after=NOW + timedelta(seconds=10),
        fault=Fault.DESTINATION_UNAVAILABLE,
        detail="no answer from pacs",
    )


def test_an_outage_is_outlasted_for_a_week_and_then_parked() -> None:
    last = after_failure(job(attempt=900), OUTAGE, now=CREATED + MAX_AGE, fraction=1)
    assert isinstance(last, RetryAt)
    over = CREATED + MAX_AGE + timedelta(microseconds=1)
    decision = after_failure(job(attempt=900), OUTAGE, now=over, fraction=1)
    assert isinstance(decision, Park)
    assert decision.fault is Fault.DESTINATION_UNAVAILABLE
    assert "7 days" in decision.detail
    few = after_failure(job(attempt=MIN_ATTEMPTS - 1), OUTAGE, now=over, fraction=1)
    assert isinstance(few, RetryAt), "only the clock says that it is old"


def test_a_permanent_error_is_parked_at_once() -> None:
    error = Permanent(Fault.CORRUPT_SPOOL, "object is missing")
    decision = after_failure(job(), error, now=NOW, fraction=0)
    assert decision == Park(fault=Fault.CORRUPT_SPOOL, detail="object is missing")


@pytest.mark.parametrize(("attempt", "parked"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_repeated_refusal_is_tried_three_times(attempt: int, *, parked: bool) -> None:
    refused = job(attempt=attempt, fault=Fault.DESTINATION_REFUSED)
    decision = after_failure(refused, REFUSAL, now=NOW, fraction=0)
    assert isinstance(decision, Park) == parked
    assert decision.fault is Fault.DESTINATION_REFUSED


@pytest.mark.parametrize("before", [None, Fault.DESTINATION_UNAVAILABLE])
def test_the_first_refusal_after_an_outage_is_tried_again(before: Fault | None) -> None:
    decision = after_failure(job(attempt=12, fault=before), REFUSAL, now=NOW, fraction=0)
    assert isinstance(decision, RetryAt)


@pytest.mark.parametrize("error", [ValueError("Doe^Jane 1.2.3"), MemoryError("Doe^Jane")])
def test_an_unexpected_error_is_parked_without_its_text(error: Exception) -> None:
    decision = after_failure(job(), error, now=NOW, fraction=0)
    assert decision == Park(fault=Fault.UNEXPECTED, detail=type(error).__name__)
