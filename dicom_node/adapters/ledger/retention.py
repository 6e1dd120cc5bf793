"""Which objects are kept, archived and purged: their rows stay, so that every exam stays
accounted for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    UnaryExpression,
    and_,
    case,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import exists as there_is
from sqlalchemy import text as sql
from sqlalchemy.sql import operators

from dicom_node.adapters.ledger import jobs as steps
from dicom_node.adapters.ledger import rows
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.jobs import JournalLine
from dicom_node.adapters.ledger.schema import (
    KEPT,
    NOT_ARCHIVED,
    OPEN,
    UtcSeconds,
    commitment_promises,
    exams,
    instances,
    jobs,
    journal,
    reports,
)
from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.exam import Exam, Outcome
from dicom_node.domain.retention import Cutoffs
from dicom_node.ports import Clock, ReportRecord

_HOUSEKEEPING = (JournalLine.ARCHIVED, JournalLine.IMAGE_PURGED, JournalLine.REPORTS_PURGED)
"""Lines that do not make an exam's end any later."""


class SqlObjectRecords:
    """The port ``ObjectRecords`` on a migrated ledger file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def promised_institutions(self) -> frozenset[str]:
        """Institutions whose requests for Storage Commitment the node has answered."""
        named = select(commitment_promises.c.institution_id).distinct()
        with self._database.read() as connection:
            return frozenset(connection.execute(named).scalars())

    def images_to_purge(
        self, cutoffs: Cutoffs, *, archived: Collection[Outcome], after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams whose image is still here and may go."""
        safe = or_(instances.c.archived_at.is_not(None), exams.c.outcome.not_in(archived))
        with self._database.read() as connection:
            here = _with_image(instances.c.instance_id <= _last_before(connection, cutoffs))
            return _exams(connection, _ended(here, after, limit).where(_older(cutoffs), safe))

    def reports_to_purge(
        self, cutoffs: Cutoffs, *, archived: bool, after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams with reports that are still here and may go, all of them."""
        with self._database.read() as connection:
            last = _exam_of(connection, _last_before(connection, cutoffs))
            here = _with_report(sql(KEPT), reports.c.exam_id <= last)
            wanted = _ended(here, after, limit).where(_older(cutoffs))
            if archived:
                kept_only_here = _with_report(sql(KEPT), sql(NOT_ARCHIVED))
                wanted = wanted.where(exams.c.exam_id.not_in(kept_only_here))
            return _exams(connection, wanted)

    def purge_image(self, exam_id: int, remove: Callable[[], bool]) -> bool:
        """The file goes while the ledger is locked: whoever enters its content again waits."""
        with self._database.write() as connection:
            if _is_open(connection, exam_id) or not remove():
                return False
            self._image(connection, exam_id, purged_at=self._clock.now())
            self._note(connection, exam_id, JournalLine.IMAGE_PURGED)
            return True

    def purge_reports(self, exam_id: int) -> bool:
        """Forget the bytes of all reports of an exam."""
        now = self._clock.now()
        with self._database.write() as connection:
            if _is_open(connection, exam_id):
                return False
            connection.execute(
                update(reports)
                .where(reports.c.exam_id == exam_id, reports.c.purged_at.is_(None))
                .values(purged_at=now, encoded=b"")
            )
            self._note(connection, exam_id, JournalLine.REPORTS_PURGED)
            return True

    def reports_of(self, exam_id: int) -> tuple[ReportRecord, ...]:
        """All report objects of an exam, in the order in which they were made."""
        wanted = (
            select(*rows.REPORT_COLUMNS, reports.c.archived_sha256)
            .where(reports.c.exam_id == exam_id)
            .order_by(reports.c.report_id)
        )
        with self._database.read() as connection:
            exam = rows.exam(connection, exam_id)
            return tuple(
                ReportRecord(
                    exam=exam,
                    report=ReportObject(
                        **{column.name: row._mapping[column] for column in rows.REPORT_COLUMNS}
                    ),
                    archived_sha256=row.archived_sha256,
                )
                for row in connection.execute(wanted)
            )

    def images_to_archive(
        self, outcomes: Collection[Outcome], *, after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams of these outcomes whose image is not in the archive and still here."""
        waiting = _with_image(instances.c.archived_at.is_(None))
        wanted = _ended(waiting, after, limit).where(exams.c.outcome.in_(outcomes))
        with self._database.read() as connection:
            return _exams(connection, wanted)

    def reports_to_archive(self, *, after: int, limit: int) -> tuple[Exam, ...]:
        """Exams with reports that are not in the archive and still here."""
        waiting = _with_report(sql(NOT_ARCHIVED), reports.c.purged_at.is_(None))
        with self._database.read() as connection:
            return _exams(connection, _ended(waiting, after, limit))

    def image_archived(self, exam_id: int) -> None:
        """The image is in the archive."""
        with self._database.write() as connection:
            self._image(connection, exam_id, archived_at=self._clock.now())
            self._note(connection, exam_id, JournalLine.ARCHIVED, object="image")

    def report_archived(self, sop_instance_uid: str, sha256: str) -> None:
        """The report object is in the archive."""
        with self._database.write() as connection:
            exam_id = connection.execute(
                update(reports)
                .where(reports.c.sop_instance_uid == sop_instance_uid)
                .values(archived_at=self._clock.now(), archived_sha256=sha256)
                .returning(reports.c.exam_id)
            ).scalar_one()
            self._note(connection, exam_id, JournalLine.ARCHIVED, object=sop_instance_uid)

    def archived_since(self, since: datetime) -> tuple[int, ...]:
        """Exams received from then on of which the archive holds anything."""
        wanted = (
            select(exams.c.exam_id)
            .join(instances, instances.c.instance_id == exams.c.instance_id)
            .where(
                instances.c.received_at >= since,
                or_(
                    instances.c.archived_at.is_not(None),
                    exams.c.exam_id.in_(_with_report(reports.c.archived_at.is_not(None))),
                ),
            )
            .order_by(exams.c.exam_id)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(wanted).scalars())

    def archived_image(self, exam_id: int) -> Exam | None:
        """The exam if its image is in the archive. Raises ``KeyError`` when there is none."""
        with self._database.read() as connection:
            exam = rows.exam(connection, exam_id)
            archived = connection.execute(
                select(instances.c.archived_at)
                .join(exams, exams.c.instance_id == instances.c.instance_id)
                .where(exams.c.exam_id == exam_id)
            ).scalar_one()
            return exam if archived else None

    def image_restored(self, exam_id: int) -> None:
        """The image is here again, for as long as if the exam had ended now."""
        with self._database.write() as connection:
            self._image(connection, exam_id, purged_at=None)
            self._note(connection, exam_id, JournalLine.RESTORED, object="image")

    def report_restored(self, exam_id: int, sop_instance_uid: str, encoded: bytes) -> None:
        """The report object is here again."""
        with self._database.write() as connection:
            connection.execute(
                update(reports)
                .where(reports.c.sop_instance_uid == sop_instance_uid)
                .values(purged_at=None, encoded=encoded)
            )
            self._note(connection, exam_id, JournalLine.RESTORED, object=sop_instance_uid)

    def _image(self, connection: Connection, exam_id: int, **values: datetime | None) -> None:
        image = select(exams.c.instance_id).where(exams.c.exam_id == exam_id).scalar_subquery()
        connection.execute(
            update(instances).where(instances.c.instance_id == image).values(**values)
        )

    def _note(
        self, connection: Connection, exam_id: int, line: JournalLine, **facts: object
    ) -> None:
        steps.note(connection, exam_id, line, now=self._clock.now(), **facts)


def _exams(connection: Connection, wanted: Select[Any]) -> tuple[Exam, ...]:
    found = connection.execute(wanted).scalars().all()
    return tuple(rows.exam(connection, exam_id) for exam_id in found)


def _ended(candidates: Select[Any], after: int, limit: int) -> Select[Any]:
    """Exams among the candidates that have an outcome and no open job. The plus keeps SQLite from
    walking through all exams instead of the candidates."""
    return (
        select(exams.c.exam_id)
        .join(instances, instances.c.instance_id == exams.c.instance_id)
        .where(
            exams.c.exam_id.in_(candidates),
            _unindexed(exams.c.exam_id) > after,
            exams.c.outcome != Outcome.PENDING,
            ~there_is().where(jobs.c.exam_id == exams.c.exam_id, sql(OPEN)).correlate(exams),
        )
        .order_by(_unindexed(exams.c.exam_id))
        .limit(limit)
    )


def _unindexed(column: Column[int]) -> ColumnElement[int]:
    return UnaryExpression(column, operator=operators.custom_op("+"))


def _with_image(*which: Any) -> Select[Any]:
    """Exams whose image is here."""
    return (
        select(exams.c.exam_id)
        .join(instances, instances.c.instance_id == exams.c.instance_id)
        .where(sql(f"instances.{KEPT}"), *which)
    )


def _with_report(*which: Any) -> Select[Any]:
    return select(reports.c.exam_id).where(*which)


def _last_before(connection: Connection, cutoffs: Cutoffs) -> int:
    """The newest instance that can be old enough; 0 without one."""
    ends = [at for at in (cutoffs.default, *cutoffs.institutions.values()) if at is not None]
    if not ends:
        return 0
    last = (
        select(instances.c.instance_id)
        .where(instances.c.received_at < max(ends))
        .order_by(instances.c.received_at.desc())
        .limit(1)
    )
    return connection.execute(last).scalar() or 0


def _exam_of(connection: Connection, instance_id: int) -> int:
    of_it = select(exams.c.exam_id).where(exams.c.instance_id == instance_id)
    return connection.execute(of_it).scalar() or 0


def _older(cutoffs: Cutoffs) -> ColumnElement[bool]:
    """Received, and last worked at, before what holds for the institution."""
    institution = instances.c.institution_id
    ending = {name: at for name, at in cutoffs.institutions.items() if at is not None}
    may_end: ColumnElement[bool] = institution.in_(ending)
    if cutoffs.default is not None:
        may_end = or_(may_end, institution.not_in(cutoffs.institutions))
    at = case(
        *((institution == name, _time(end)) for name, end in ending.items()),
        (literal(True), _time(cutoffs.default)),
    )
    later = there_is().where(
        journal.c.exam_id == exams.c.exam_id,
        journal.c.at >= at,
        journal.c.event.not_in(_HOUSEKEEPING),
    )
    return and_(may_end, instances.c.received_at < at, ~later.correlate(exams, instances))


def _time(at: datetime | None) -> ColumnElement[Any]:
    return literal(at, UtcSeconds())


def _is_open(connection: Connection, exam_id: int) -> bool:
    open_jobs = select(jobs.c.job_id).where(jobs.c.exam_id == exam_id, sql(OPEN))
    return connection.execute(open_jobs).first() is not None
