"""What the centre has still to learn: a row for each exam, with how often its facts have changed
and which change the centre has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, literal, select, text, update
from sqlalchemy.dialects import sqlite

from dicom_node.adapters.ledger import rows
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.jobs import JournalLine
from dicom_node.adapters.ledger.schema import (
    WAITS_FOR_CENTRE,
    deliveries,
    exams,
    forwarding,
    instances,
    jobs,
    journal,
    reports,
)
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import UNKNOWN_SENDER, Exam, Outcome
from dicom_node.domain.job import JobState, Stage
from dicom_node.domain.record import DeliveryOutcome, DeliveryRecord, StageTimes
from dicom_node.ports import Backlog, Clock, Forwardable

_STEPS = (
    JournalLine.RECEIVED,
    JournalLine.SCREENED,
    JournalLine.IGNORED,
    JournalLine.NOT_ASSESSED,
    JournalLine.ASSESSED,
    JournalLine.REPORTED,
)
_OUTCOMES = {
    JobState.QUEUED: DeliveryOutcome.OPEN,
    JobState.LEASED: DeliveryOutcome.OPEN,
    JobState.DONE: DeliveryOutcome.DELIVERED,
    JobState.PARKED: DeliveryOutcome.PARKED,
    JobState.DISCARDED: DeliveryOutcome.DISCARDED,
}


def note_change(connection: Connection, exam_id: int, *, now: datetime) -> None:
    """The facts of an exam have changed, in the transaction that changed them; one that has no
    outcome yet is of no interest."""
    connection.execute(_NOTE_CHANGE, {"changed_exam": exam_id, "moment": now})


_NEW_CHANGE = sqlite.insert(forwarding).from_select(
    ["exam_id", "change", "changed_at"],
    select(
        exams.c.exam_id, literal(1), bindparam("moment", type_=forwarding.c.changed_at.type)
    ).where(exams.c.exam_id == bindparam("changed_exam"), exams.c.outcome != Outcome.PENDING),
)
_NOTE_CHANGE = _NEW_CHANGE.on_conflict_do_update(
    index_elements=["exam_id"],
    set_={
        "change": forwarding.c.change + 1,
        "changed_at": _NEW_CHANGE.excluded.changed_at,
        "fault": None,
    },
)


class SqlOutbox:
    """The port ``Outbox`` on a migrated ledger file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def waiting(self, limit: int) -> tuple[Forwardable, ...]:
        """Exams whose facts the centre does not have, those that wait longest first; not those
        whose sender was forgotten, which would change their names."""
        wanted = (
            select(forwarding.c.exam_id, forwarding.c.change)
            .join(exams, exams.c.exam_id == forwarding.c.exam_id)
            .join(instances, instances.c.instance_id == exams.c.instance_id)
            .where(text(WAITS_FOR_CENTRE), instances.c.institution_id != UNKNOWN_SENDER)
            .order_by(forwarding.c.changed_at)
            .limit(limit)
        )
        with self._database.read() as connection:
            changes = {row.exam_id: row.change for row in connection.execute(wanted)}
            return _forwardable(connection, changes)

    def forwarded(self, changes: Mapping[int, int], *, batch: int) -> None:
        """The centre has these exams' facts as of these changes, by this batch."""
        with self._database.write() as connection:
            for exam_id, change in changes.items():
                connection.execute(
                    update(forwarding)
                    .where(forwarding.c.exam_id == exam_id)
                    .values(forwarded_change=change, batch=batch)
                )

    def refused(self, exam_id: int, change: int, fault: Fault) -> None:
        """The centre will not take these facts: they wait until they change or are replayed."""
        with self._database.write() as connection:
            connection.execute(
                update(forwarding)
                .where(forwarding.c.exam_id == exam_id, forwarding.c.change == change)
                .values(fault=fault)
            )

    def last_batch(self) -> int:
        """The last batch that the centre has acknowledged, 0 before the first."""
        with self._database.read() as connection:
            return connection.execute(select(func.max(forwarding.c.batch))).scalar_one() or 0

    def forget_after(self, batch: int) -> int:
        """Batches after this one are lost at the centre: send their exams again; return how many
        they are."""
        return self._forget(forwarding.c.batch > batch)

    def replay(self, since: datetime) -> int:
        """Send again every exam that was received since then; return how many they are."""
        received = select(exams.c.exam_id).join(
            instances, instances.c.instance_id == exams.c.instance_id
        )
        return self._forget(
            forwarding.c.exam_id.in_(received.where(instances.c.received_at >= since))
        )

    def exams_since(self, at: datetime) -> tuple[Exam, ...]:
        """Every exam that was received from then on."""
        wanted = (
            select(exams.c.exam_id)
            .join(instances, instances.c.instance_id == exams.c.instance_id)
            .where(instances.c.received_at >= at)
        )
        with self._database.read() as connection:
            found = list(connection.execute(wanted).scalars())
            return tuple(rows.exam(connection, exam_id) for exam_id in found)

    def backlog(self) -> Backlog:
        """How much waits, and since when."""
        waits = select(func.count(), func.min(forwarding.c.changed_at)).where(
            text(WAITS_FOR_CENTRE)
        )
        refused = select(func.count()).where(forwarding.c.fault.is_not(None))
        with self._database.read() as connection:
            count, oldest = connection.execute(waits).one()
            return Backlog(
                waiting=count,
                oldest_at=oldest,
                refused=connection.execute(refused).scalar_one(),
            )

    def _forget(self, which: Any) -> int:
        with self._database.write() as connection:
            again = update(forwarding).where(which).values(forwarded_change=0, fault=None)
            return connection.execute(again).rowcount


def _forwardable(connection: Connection, changes: Mapping[int, int]) -> tuple[Forwardable, ...]:
    exam_ids = list(changes)
    times, kinds = _times(connection, exam_ids), _kinds(connection, exam_ids)
    ways = _deliveries(connection, exam_ids)
    return tuple(
        Forwardable(
            exam=rows.exam(connection, exam_id),
            change=change,
            eligibility=rows.eligibility(connection, exam_id),
            prediction=rows.prediction(connection, exam_id),
            times=times[exam_id],
            object_kinds=kinds[exam_id],
            deliveries=tuple(ways[exam_id]),
        )
        for exam_id, change in changes.items()
    )


def _times(connection: Connection, exam_ids: Sequence[int]) -> dict[int, StageTimes]:
    """Of the first time that an exam went through each stage."""
    first = (
        select(journal.c.exam_id, journal.c.event, func.min(journal.c.at).label("at"))
        .where(journal.c.exam_id.in_(exam_ids), journal.c.event.in_(_STEPS))
        .group_by(journal.c.exam_id, journal.c.event)
    )
    found: dict[int, dict[str, datetime]] = {exam_id: {} for exam_id in exam_ids}
    for row in connection.execute(first):
        found[row.exam_id][row.event] = row.at
    return {exam_id: _stage_times(at) for exam_id, at in found.items()}


def _stage_times(at: Mapping[str, datetime]) -> StageTimes:
    received = at.get(JournalLine.RECEIVED)
    ended = at.get(JournalLine.NOT_ASSESSED)
    screened = at.get(JournalLine.SCREENED)
    assessed = at.get(JournalLine.ASSESSED) or ended
    return StageTimes(
        screen_seconds=_between(received, screened or at.get(JournalLine.IGNORED) or ended),
        infer_seconds=_between(screened, assessed),
        report_seconds=_between(assessed, at.get(JournalLine.REPORTED)),
        reported_at=_not_before(received, at.get(JournalLine.REPORTED)),
    )


def _not_before(begin: datetime | None, end: datetime | None) -> datetime | None:
    """A clock that was set back between both made time run backwards."""
    return end if begin is None or end is None else max(begin, end)


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _kinds(connection: Connection, exam_ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    made = (
        select(reports.c.exam_id, reports.c.kind)
        .where(reports.c.exam_id.in_(exam_ids))
        .distinct()
        .order_by(reports.c.kind)
    )
    found = defaultdict(list)
    for row in connection.execute(made):
        found[row.exam_id].append(row.kind)
    return {exam_id: tuple(found[exam_id]) for exam_id in exam_ids}


def _deliveries(connection: Connection, exam_ids: Sequence[int]) -> dict[int, list[DeliveryRecord]]:
    """By the last job(DELIVER) for each destination."""
    last = (
        select(func.max(jobs.c.job_id))
        .where(jobs.c.exam_id.in_(exam_ids), jobs.c.stage == Stage.DELIVER)
        .group_by(jobs.c.exam_id, jobs.c.destination)
    )
    stored = (
        select(func.max(deliveries.c.answered_at))
        .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(
            reports.c.exam_id == jobs.c.exam_id,
            deliveries.c.destination == jobs.c.destination,
            deliveries.c.verdict == Verdict.STORED,
        )
        .correlate(jobs)
        .scalar_subquery()
    )
    wanted = select(
        jobs.c.exam_id, jobs.c.destination, jobs.c.state, jobs.c.created_at, stored.label("at")
    ).where(jobs.c.job_id.in_(last))
    found: dict[int, list[DeliveryRecord]] = defaultdict(list)
    for row in connection.execute(wanted):
        outcome = _OUTCOMES[row.state]
        delivered = outcome is DeliveryOutcome.DELIVERED
        found[row.exam_id].append(
            DeliveryRecord(
                destination=row.destination,
                outcome=outcome,
                delivered_at=(row.at or row.created_at) if delivered else None,
            )
        )
    return found
