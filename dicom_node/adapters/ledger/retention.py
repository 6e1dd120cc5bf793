"""Which objects are kept, archived and purged: their rows stay, so that every exam stays
accounted for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, literal, or_, select, update
from sqlalchemy import exists as there_is
from sqlalchemy import text as sql

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
        wanted = _ended(after, limit).where(sql(f"instances.{KEPT}"), _older(cutoffs), safe)
        return self._exams(wanted)

    def reports_to_purge(
        self, cutoffs: Cutoffs, *, archived: bool, after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams with reports that are still here and may go, all of them."""
        here = _has_report(sql(f"reports.{KEPT}"))
        wanted = _ended(after, limit).where(here, _older(cutoffs))
        if archived:
            wanted = wanted.where(
                ~_has_report(sql(f"reports.{KEPT}"), sql(f"reports.{NOT_ARCHIVED}"))
            )
        return self._exams(wanted)

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
        return self._exams(
            _ended(after, limit).where(
                sql(f"instances.{NOT_ARCHIVED}"),
                instances.c.purged_at.is_(None),
                exams.c.outcome.in_(outcomes),
            )
        )

    def reports_to_archive(self, *, after: int, limit: int) -> tuple[Exam, ...]:
        """Exams with reports that are not in the archive and still here."""
        waiting = _has_report(sql(f"reports.{NOT_ARCHIVED}"), reports.c.purged_at.is_(None))
        return self._exams(_ended(after, limit).where(waiting))

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
                    _has_report(reports.c.archived_at.is_not(None)),
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

    def _exams(self, wanted: Select[Any]) -> tuple[Exam, ...]:
        with self._database.read() as connection:
            found = connection.execute(wanted).scalars().all()
            return tuple(rows.exam(connection, exam_id) for exam_id in found)

    def _image(self, connection: Connection, exam_id: int, **values: datetime | None) -> None:
        image = select(exams.c.instance_id).where(exams.c.exam_id == exam_id).scalar_subquery()
        connection.execute(
            update(instances).where(instances.c.instance_id == image).values(**values)
        )

    def _note(
        self, connection: Connection, exam_id: int, line: JournalLine, **facts: object
    ) -> None:
        steps.note(connection, exam_id, line, now=self._clock.now(), **facts)


def _ended(after: int, limit: int) -> Select[Any]:
    """Exams that have an outcome and no open job."""
    return (
        select(exams.c.exam_id)
        .join(instances, instances.c.instance_id == exams.c.instance_id)
        .where(
            exams.c.exam_id > after,
            exams.c.outcome != Outcome.PENDING,
            ~there_is().where(jobs.c.exam_id == exams.c.exam_id, sql(OPEN)).correlate(exams),
        )
        .order_by(exams.c.exam_id)
        .limit(limit)
    )


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


def _has_report(*which: Any) -> ColumnElement[bool]:
    return there_is().where(reports.c.exam_id == exams.c.exam_id, *which).correlate(exams)


def _is_open(connection: Connection, exam_id: int) -> bool:
    open_jobs = select(jobs.c.job_id).where(jobs.c.exam_id == exam_id, sql(OPEN))
    return connection.execute(open_jobs).first() is not None
