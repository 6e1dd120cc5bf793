"""Jobs: an exam's stages as units of work with leases, and the life cycle as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_node.domain.errors import Fault


class Stage(StrEnum):
    """What is to be done for an exam, in this order."""

    SCREEN = "screen"
    INFER = "infer"
    REPORT = "report"
    DELIVER = "deliver"
    CONFIRM = "confirm"
    """Prove that a destination keeps what it said it stored."""


TO_DESTINATIONS = (Stage.DELIVER, Stage.CONFIRM)
"""Stages whose jobs name a destination."""


class JobState(StrEnum):
    """queued -> leased -> done, or parked until a person retries or discards it."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    PARKED = "parked"
    DISCARDED = "discarded"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY_LATER = "retry_later"
    LEASE_EXPIRED = "lease_expired"
    PARK = "park"
    RETRY = "retry"
    DISCARD = "discard"


TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIM): JobState.LEASED,
    (JobState.QUEUED, JobEvent.PARK): JobState.PARKED,
    (JobState.QUEUED, JobEvent.DISCARD): JobState.DISCARDED,
    (JobState.LEASED, JobEvent.COMPLETE): JobState.DONE,
    (JobState.LEASED, JobEvent.RETRY_LATER): JobState.QUEUED,
    (JobState.LEASED, JobEvent.LEASE_EXPIRED): JobState.QUEUED,
    (JobState.LEASED, JobEvent.PARK): JobState.PARKED,
    (JobState.PARKED, JobEvent.RETRY): JobState.QUEUED,
    (JobState.PARKED, JobEvent.DISCARD): JobState.DISCARDED,
}
"""Every allowed step; anything else is an error."""


class ForbiddenTransition(Exception):
    """An operator asked for a step that the life cycle does not have."""


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after ``event``. Raises :class:`ForbiddenTransition` when the table has no such
    step."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ForbiddenTransition(f"a {state} job cannot take the step {event}") from None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One (exam, stage, destination) to do. ``destination`` is "" but for TO_DESTINATIONS."""

    job_id: int
    exam_id: int
    stage: Stage
    destination: str
    state: JobState
    attempt: int
    """Number of claims so far; the fencing token of a lease."""
    crashes: int
    """Leases that ran out without an answer."""
    created_at: datetime
    run_after: datetime
    fault: Fault | None = None
    detail: str = ""
