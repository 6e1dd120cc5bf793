"""Steps of jobs inside an open transaction, and the journal's lines about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from dicom_node.adapters.ledger.schema import LEASED, QUEUED, jobs, journal
from dicom_node.domain.commitment import ASK_AGAIN
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.job import (
    TO_DESTINATIONS,
    Job,
    JobEvent,
    JobState,
    Stage,
    next_state,
)
from dicom_node.domain.retry import CAP_SECONDS, MAX_CRASHES

JOB_COLUMNS: tuple[Column[Any], ...] = (
    jobs.c.job_id,
    jobs.c.exam_id,
    jobs.c.stage,
    jobs.c.destination,
    jobs.c.state,
    jobs.c.attempt,
    jobs.c.crashes,
    jobs.c.created_at,
    jobs.c.run_after,
    jobs.c.fault,
    jobs.c.detail,
)
_NAMES = frozenset(jobs.c.keys())
_NO_LEASE = {"owner": None, "lease_expires_at": None}
FRESH = {"crashes": 0, "fault": None, "detail": ""}
"""What a job that is queued again by somebody leaves behind."""
_MENDED_BY_SENDING_AGAIN = (Fault.CORRUPT_SPOOL, Fault.INSTITUTION_UNKNOWN)
_STAGES = tuple(Stage)
_NEW_JOB, _NEW_LINE = insert(jobs), insert(journal)
_LONGEST_DELAY = max(timedelta(seconds=CAP_SECONDS), ASK_AGAIN)


class JournalLine(StrEnum):
    """What the journal can say about an exam."""

    RECEIVED = "received"
    RECEIVED_AGAIN = "received_again"
    CONFLICT_RECEIVED = "conflict_received"
    CLAIMED = "claimed"
    SCREENED = "screened"
    IGNORED = "ignored"
    NOT_ASSESSED = "not_assessed"
    ASSESSED = "assessed"
    REPORTED = "reported"
    NOTHING_TO_DELIVER = "nothing_to_deliver"
    ANSWERED = "answered"
    DELIVERED = "delivered"
    COMMITMENT_ASKED = "commitment_asked"
    EVIDENCE = "evidence"
    CONFIRMED = "confirmed"
    SENT_AGAIN = "sent_again"
    RETRY_LATER = "retry_later"
    LEASE_EXPIRED = "lease_expired"
    PARKED = "parked"
    ARCHIVED = "archived"
    IMAGE_PURGED = "image_purged"
    REPORTS_PURGED = "reports_purged"
    RESTORED = "restored"
    OPERATOR_REASSESSED = "operator_reassessed"
    OPERATOR_RETRIED = "operator_retried"
    OPERATOR_PARKED = "operator_parked"
    OPERATOR_DISCARDED = "operator_discarded"


def to_job(row: Row[*tuple[Any, ...]]) -> Job:
    """A row of :data:`JOB_COLUMNS` as a value."""
    return Job(**row._mapping)


def enqueue(
    connection: Connection,
    exam_id: int,
    stage: Stage,
    *,
    now: datetime,
    destination: str = "",
    fault: Fault | None = None,
) -> None:
    """A new job, due at once; with ``fault`` it starts parked."""
    connection.execute(
        _NEW_JOB,
        {
            "exam_id": exam_id,
            "stage": stage,
            "destination": destination,
            "state": JobState.QUEUED if fault is None else JobState.PARKED,
            "attempt": 0,
            "crashes": 0,
            "created_at": now,
            "run_after": now,
            "fault": fault,
            "detail": "",
        },
    )


_EXPIRED = select(jobs.c.job_id).where(text(LEASED), jobs.c.lease_expires_at <= bindparam("moment"))


def end_expired_leases(connection: Connection, *, now: datetime) -> None:
    """Take the leases that ran out."""
    if connection.execute(_EXPIRED, {"moment": now}).first() is not None:
        _end_leases(connection, jobs.c.lease_expires_at <= now, now=now)


def mend_clock_step(connection: Connection, *, now: datetime) -> int:
    """Jobs that wait, or are leased, until later than they can be: the clock was set back after
    they were. They are due now; return their number."""
    latest = now + _LONGEST_DELAY
    queued = update(jobs).where(text(QUEUED), jobs.c.run_after > latest).values(run_after=now)
    leased = _end_leases(connection, jobs.c.lease_expires_at > latest, now=now)
    return leased + connection.execute(queued).rowcount


def hurry(connection: Connection, destination: str) -> int:
    """Jobs that wait because their destination did not answer are due now, the oldest first;
    return their number."""
    waiting = (
        update(jobs)
        .where(
            text(QUEUED),
            jobs.c.stage.in_(TO_DESTINATIONS),
            jobs.c.destination == destination,
            jobs.c.fault == Fault.DESTINATION_UNAVAILABLE,
            jobs.c.run_after > jobs.c.created_at,
        )
        .values(run_after=jobs.c.created_at)
    )
    return connection.execute(waiting).rowcount


def end_leases_of(connection: Connection, owner: str, *, now: datetime) -> int:
    """Take all leases of a worker that is dead; return their number."""
    return _end_leases(connection, jobs.c.owner == owner, now=now)


def end_all_leases(connection: Connection, *, now: datetime) -> int:
    """Take every lease; return their number."""
    return _end_leases(connection, true(), now=now)


def _end_leases(connection: Connection, which: ColumnElement[bool], *, now: datetime) -> int:
    """Queue the jobs again, or park them after :data:`MAX_CRASHES`."""
    silent = connection.execute(select(*JOB_COLUMNS).where(text(LEASED), which)).all()
    for job in map(to_job, silent):
        crashes = job.crashes + 1
        if crashes < MAX_CRASHES:
            leave(connection, job, JobEvent.LEASE_EXPIRED, crashes=crashes, run_after=now)
            note_job(connection, job, JournalLine.LEASE_EXPIRED, now=now, crashes=crashes)
            continue
        fault = Fault.CRASHED_REPEATEDLY
        detail = f"{crashes} workers died or hung in this stage"
        leave(connection, job, JobEvent.PARK, crashes=crashes, fault=fault, detail=detail)
        note_job(connection, job, JournalLine.PARKED, now=now, fault=fault)
    return len(silent)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who claims, from when until when."""

    owner: str
    now: datetime
    expires_at: datetime


def claim_due(
    connection: Connection,
    stages: Sequence[Stage],
    lease: Lease,
    *,
    limit: int,
    destination: str | None,
) -> list[Job]:
    """Lease due jobs, later stages first, then those that have been due longest."""
    claimed: list[Job] = []
    for stage in sorted(set(stages), key=_STAGES.index, reverse=True):
        if len(claimed) < limit:
            claimed += _lease(connection, stage, lease, limit - len(claimed), destination)
    _note_claims(connection, claimed, lease)
    return claimed


def _claim_statement(due: Select[tuple[int]]) -> ReturningUpdate[Any]:
    """Made once: a worker that has nothing to do runs it every second."""
    return (
        update(jobs)
        .where(jobs.c.job_id.in_(due))
        .values(
            state=next_state(JobState.QUEUED, JobEvent.CLAIM),
            attempt=jobs.c.attempt + 1,
            owner=bindparam("claimer"),
            lease_expires_at=bindparam("expiry"),
        )
        .returning(*JOB_COLUMNS)
    )


_DUE = (
    select(jobs.c.job_id)
    .where(
        text(QUEUED), jobs.c.stage == bindparam("wanted"), jobs.c.run_after <= bindparam("moment")
    )
    .order_by(jobs.c.run_after, jobs.c.job_id)
    .limit(bindparam("most"))
)
_CLAIM = _claim_statement(_DUE)
_CLAIM_FOR = _claim_statement(_DUE.where(jobs.c.destination == bindparam("goal")))


def _lease(
    connection: Connection, stage: Stage, lease: Lease, limit: int, destination: str | None
) -> list[Job]:
    values = {
        "wanted": stage,
        "moment": lease.now,
        "most": limit,
        "claimer": lease.owner,
        "expiry": lease.expires_at,
    }
    if destination is None:
        taken = connection.execute(_CLAIM, values)
    else:
        taken = connection.execute(_CLAIM_FOR, values | {"goal": destination})
    return sorted(map(to_job, taken), key=lambda job: (job.run_after, job.job_id))


def leave(connection: Connection, job: Job, step: JobEvent, **values: object) -> None:
    """End the lease that ``job`` stands for by ``step``. Raises ``LeaseLost`` when it is gone."""
    assert values.keys() <= _NAMES  # SQLAlchemy would leave out what is no column
    state = next_state(JobState.LEASED, step)
    left = connection.execute(_LEAVE, {**_lease_of(job), "state": state, **_NO_LEASE, **values})
    if left.rowcount == 0:
        raise LeaseLost(job.job_id)


def check_lease(connection: Connection, job: Job) -> None:
    """Raises ``LeaseLost`` when another attempt, or nobody, holds the job now."""
    if connection.execute(_IS_HELD, _lease_of(job)).first() is None:
        raise LeaseLost(job.job_id)


_HELD = (
    jobs.c.job_id == bindparam("held_job"),
    jobs.c.attempt == bindparam("held_attempt"),
    jobs.c.state == JobState.LEASED,
)
_LEAVE, _IS_HELD = update(jobs).where(*_HELD), select(jobs.c.job_id).where(*_HELD)


def _lease_of(job: Job) -> dict[str, object]:
    return {"held_job": job.job_id, "held_attempt": job.attempt}


def operate(connection: Connection, job: Job, step: JobEvent, **values: object) -> None:
    """An operator's step, from whatever state the job is in; a lease ends with it.

    Raises ``ForbiddenTransition``.
    """
    connection.execute(
        update(jobs)
        .where(jobs.c.job_id == job.job_id)
        .values(state=next_state(job.state, step), **_NO_LEASE, **values)
    )


def queue_again(connection: Connection, exam_id: int, *, now: datetime) -> None:
    """The object came again: a job that waited for that goes on by itself."""
    waiting = select(*JOB_COLUMNS).where(
        jobs.c.exam_id == exam_id,
        jobs.c.state == JobState.PARKED,
        jobs.c.fault.in_(_MENDED_BY_SENDING_AGAIN),
    )
    for job in map(to_job, connection.execute(waiting).all()):
        operate(connection, job, JobEvent.RETRY, **FRESH, created_at=now, run_after=now)
        note_job(connection, job, JournalLine.RECEIVED_AGAIN, now=now)


def note(
    connection: Connection, exam_id: int, line: JournalLine, *, now: datetime, **facts: object
) -> None:
    """Add a line to the exam's journal. ``facts`` are identifiers and codes, never patient data."""
    connection.execute(
        _NEW_LINE, {"exam_id": exam_id, "at": now, "event": line, "detail": _facts(facts)}
    )


def note_job(
    connection: Connection, job: Job, line: JournalLine, *, now: datetime, **facts: object
) -> None:
    """Add a line about a job: its stage, attempt and destination first."""
    note(connection, job.exam_id, line, now=now, **_job_facts(job), **facts)


def _note_claims(connection: Connection, claimed: Iterable[Job], lease: Lease) -> None:
    lines = [
        {
            "exam_id": job.exam_id,
            "at": lease.now,
            "event": JournalLine.CLAIMED,
            "detail": _facts({**_job_facts(job), "owner": lease.owner}),
        }
        for job in claimed
    ]
    if lines:
        connection.execute(_NEW_LINE, lines)


def _job_facts(job: Job) -> dict[str, object]:
    facts: dict[str, object] = {"job": job.job_id, "stage": job.stage, "attempt": job.attempt}
    return {**facts, "destination": job.destination} if job.destination else facts


def _facts(facts: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in facts.items())
