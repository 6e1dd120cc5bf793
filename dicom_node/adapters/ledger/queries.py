"""What an operator asks and does: exams, queues, and the fate of single jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, select, text

from dicom_node.adapters.ledger import commitments, rows
from dicom_node.adapters.ledger import jobs as steps
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.jobs import JOB_COLUMNS, JournalLine, to_job
from dicom_node.adapters.ledger.outbox import note_change
from dicom_node.adapters.ledger.schema import (
    OPEN,
    deliveries,
    exams,
    instances,
    jobs,
    journal,
    reports,
)
from dicom_node.domain.assessment import Note, Prediction, notes_for_reader
from dicom_node.domain.commitment import Evidence
from dicom_node.domain.delivery import ReportKind, Verdict
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Exam, Outcome
from dicom_node.domain.job import ForbiddenTransition, Job, JobEvent, JobState, Stage
from dicom_node.ports import Clock, Eligibility, JournalEntry


@dataclass(frozen=True, kw_only=True)
class ExamSummary:
    """One exam in a list; no patient data."""

    exam_id: int
    received_at: datetime
    institution_id: str
    calling_ae_title: str
    outcome: Outcome
    reason: str | None
    open_jobs: tuple[Job, ...]
    """What is still to be done, or waits for a person."""


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """One report object without its bytes. ``revision``: 1 for the first report of an image."""

    revision: int
    kind: ReportKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    size_bytes: int
    archived_at: datetime | None
    purged_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeliveryAnswer:
    """A destination's last answer for one report object."""

    sop_instance_uid: str
    destination: str
    status: int
    """Status of the C-STORE response (0000,0900)."""
    verdict: Verdict
    sent_sop_class_uid: str
    sent_sop_instance_uid: str
    """As what the object was sent: see ``SOP_CLASSES`` in ``dicom_node/domain/delivery.py``."""
    answered_at: datetime
    evidence: Evidence | None
    """What is known beyond the status; None where the destination was not asked or has not
    answered."""
    evidence_at: datetime | None
    losses: int
    """How often the destination lost it after a success."""


@dataclass(frozen=True, kw_only=True)
class ExamDetails:
    """Everything that the ledger knows about one exam."""

    exam: Exam
    image_purged_at: datetime | None
    eligibility: Eligibility | None
    prediction: Prediction | None
    reports: tuple[StoredReport, ...]
    deliveries: tuple[DeliveryAnswer, ...]
    jobs: tuple[Job, ...]
    journal: tuple[JournalEntry, ...]

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the reader of the report must know, as the report says it."""
        stated = self.eligibility.notes if self.eligibility else ()
        return notes_for_reader(stated, self.prediction.findings if self.prediction else ())


class OperatorLedger:
    """The operator's side of a migrated ledger file.

    Raises ``Transient`` (STORAGE_UNAVAILABLE) when the database cannot be read or cannot commit.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def exams(self, *, limit: int, outcome: Outcome | None = None) -> list[ExamSummary]:
        """The last exams, newest first."""
        wanted = (
            select(exams, instances)
            .join(instances, instances.c.instance_id == exams.c.instance_id)
            .order_by(exams.c.exam_id.desc())
            .limit(limit)
        )
        if outcome is not None:
            wanted = wanted.where(exams.c.outcome == outcome)
        with self._database.read() as connection:
            return [
                ExamSummary(
                    exam_id=row.exam_id,
                    received_at=row.received_at,
                    institution_id=row.institution_id,
                    calling_ae_title=row.calling_ae_title,
                    outcome=row.outcome,
                    reason=row.reason,
                    open_jobs=_jobs(connection, exam_id=row.exam_id, only_open=True),
                )
                for row in connection.execute(wanted).all()
            ]

    def exam_ids(self, sop_instance_uid: str) -> list[int]:
        """The exams of an instance, oldest first; more than one when its content changed."""
        wanted = (
            select(exams.c.exam_id)
            .join(instances, instances.c.instance_id == exams.c.instance_id)
            .where(instances.c.sop_instance_uid == sop_instance_uid)
            .order_by(exams.c.exam_id)
        )
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())

    def exam(self, exam_id: int) -> Exam:
        """One exam. Raises ``KeyError`` when there is none."""
        with self._database.read() as connection:
            return rows.exam(connection, exam_id)

    def exam_of_job(self, job_id: int) -> Exam:
        """The exam that a job belongs to. Raises ``KeyError`` when there is no such job."""
        wanted = select(jobs.c.exam_id).where(jobs.c.job_id == job_id)
        with self._database.read() as connection:
            exam_id = connection.execute(wanted).scalar()
            if exam_id is None:
                raise KeyError(job_id)
            return rows.exam(connection, exam_id)

    def exam_details(self, exam_id: int) -> ExamDetails:
        """One exam's whole journey. Raises ``KeyError`` when there is no such exam."""
        with self._database.read() as connection:
            return ExamDetails(
                exam=rows.exam(connection, exam_id),
                image_purged_at=rows.image_purged_at(connection, exam_id),
                eligibility=rows.eligibility(connection, exam_id),
                prediction=rows.prediction(connection, exam_id),
                reports=_reports(connection, exam_id),
                deliveries=_deliveries(connection, exam_id),
                jobs=_jobs(connection, exam_id=exam_id),
                journal=_journal(connection, exam_id),
            )

    def jobs(self, *, limit: int, state: JobState | None = None) -> list[Job]:
        """The last jobs, newest first."""
        wanted = select(*JOB_COLUMNS).order_by(jobs.c.job_id.desc()).limit(limit)
        if state is not None:
            wanted = wanted.where(jobs.c.state == state)
        with self._database.read() as connection:
            return [to_job(row) for row in connection.execute(wanted)]

    def queue_depths(self) -> dict[tuple[Stage, JobState], int]:
        """Number of open jobs (queued, leased, parked); a pair that is missing has none."""
        counted = (
            select(jobs.c.stage, jobs.c.state, func.count().label("jobs"))
            .where(text(OPEN))
            .group_by(jobs.c.stage, jobs.c.state)
        )
        with self._database.read() as connection:
            return {(row.stage, row.state): row.jobs for row in connection.execute(counted)}

    def oldest_job_seconds(self) -> dict[Stage, float]:
        """Age in seconds of each stage's oldest job that waits or runs; retries do not make it
        younger. Parked jobs wait for a person and do not count."""
        return self._oldest_seconds(jobs.c.state != JobState.PARKED)

    def oldest_parked_job_seconds(self) -> dict[Stage, float]:
        """Age in seconds, since it was queued, of each stage's oldest parked job."""
        return self._oldest_seconds(jobs.c.state == JobState.PARKED)

    def _oldest_seconds(self, which: ColumnElement[bool]) -> dict[Stage, float]:
        oldest = (
            select(jobs.c.stage, func.min(jobs.c.created_at).label("created_at"))
            .where(text(OPEN), which)
            .group_by(jobs.c.stage)
        )
        now = self._clock.now()
        with self._database.read() as connection:
            return {
                row.stage: (now - row.created_at).total_seconds()
                for row in connection.execute(oldest)
            }

    def outcome_counts(self) -> dict[tuple[Outcome, str | None], int]:
        """Number of exams by outcome and reason."""
        counted = select(exams.c.outcome, exams.c.reason, func.count().label("exams")).group_by(
            exams.c.outcome, exams.c.reason
        )
        with self._database.read() as connection:
            return {(row.outcome, row.reason): row.exams for row in connection.execute(counted)}

    def known_contents(self) -> frozenset[str]:
        """Content hashes of all images that were not purged; an object in the spool without one is
        an orphan."""
        kept = select(instances.c.content_sha256).where(instances.c.purged_at.is_(None))
        with self._database.read() as connection:
            return frozenset(connection.execute(kept).scalars())

    def reassess(self, exam_id: int) -> None:
        """Screen and assess an exam again, with the model that runs now; its report is revised if
        anything has changed.

        Raises ``KeyError`` for an unknown exam and ``ForbiddenTransition`` while it has open jobs,
        when its image was purged, and when a corrected header of the same image was reported after
        it.
        """
        now = self._clock.now()
        with self._database.write() as connection:
            rows.exam(connection, exam_id)
            if _jobs(connection, exam_id=exam_id, only_open=True):
                raise ForbiddenTransition(f"exam {exam_id} has open jobs: finish those first")
            if rows.image_purged_at(connection, exam_id) is not None:
                raise ForbiddenTransition(
                    f"the image of exam {exam_id} was purged: have it sent again, or "
                    f"`dicom-node archive restore {exam_id}`"
                )
            last = rows.last_reported_exam(connection, exam_id)
            if last not in (None, exam_id):
                raise ForbiddenTransition(
                    f"exam {exam_id} was corrected: exam {last} holds the last report of its image;"
                    f" `dicom-node exam reassess {last}`"
                )
            steps.enqueue(connection, exam_id, Stage.SCREEN, now=now)
            steps.note(connection, exam_id, JournalLine.OPERATOR_REASSESSED, now=now)

    def retry_job(self, job_id: int) -> None:
        """Queue a parked job at once; its age and its crashes count from now.

        Raises ``KeyError`` for an unknown job and ``ForbiddenTransition`` for one not parked.
        """
        now = self._clock.now()
        self._operate(
            job_id,
            JobEvent.RETRY,
            JournalLine.OPERATOR_RETRIED,
            now=now,
            created_at=now,
            run_after=now,
            crashes=0,
            fault=None,
            detail="",
        )

    def park_job(self, job_id: int, reason: str) -> None:
        """Stop a queued or leased job until a person retries it; ``reason`` becomes its detail.

        Raises ``KeyError`` for an unknown job and ``ForbiddenTransition`` for one that ended.
        """
        self._operate(
            job_id,
            JobEvent.PARK,
            JournalLine.OPERATOR_PARKED,
            now=self._clock.now(),
            fault=Fault.OPERATOR,
            detail=reason,
        )

    def discard_job(self, job_id: int, reason: str) -> None:
        """Give a queued or parked job up for good; ``reason`` becomes its detail.

        Raises ``KeyError`` for an unknown job and ``ForbiddenTransition`` for one that is leased
        (park it first) or ended.
        """
        self._operate(
            job_id,
            JobEvent.DISCARD,
            JournalLine.OPERATOR_DISCARDED,
            now=self._clock.now(),
            detail=reason,
        )

    def _operate(
        self, job_id: int, step: JobEvent, line: JournalLine, *, now: datetime, **values: object
    ) -> None:
        with self._database.write() as connection:
            row = connection.execute(select(*JOB_COLUMNS).where(jobs.c.job_id == job_id)).first()
            if row is None:
                raise KeyError(job_id)
            job = to_job(row)
            try:
                steps.operate(connection, job, step, **values)
            except ForbiddenTransition as error:
                raise ForbiddenTransition(f"job {job_id}: {error}") from None
            if step is JobEvent.RETRY and job.stage is Stage.CONFIRM:
                commitments.begin_again(connection, job)
            steps.note_job(connection, job, line, now=now)
            note_change(connection, job.exam_id, now=now)


def _jobs(connection: Connection, *, exam_id: int, only_open: bool = False) -> tuple[Job, ...]:
    wanted = select(*JOB_COLUMNS).where(jobs.c.exam_id == exam_id).order_by(jobs.c.job_id)
    if only_open:
        wanted = wanted.where(text(OPEN))
    return tuple(to_job(row) for row in connection.execute(wanted))


def _reports(connection: Connection, exam_id: int) -> tuple[StoredReport, ...]:
    wanted = (
        select(
            reports.c.revision,
            reports.c.kind,
            reports.c.sop_class_uid,
            reports.c.sop_instance_uid,
            reports.c.series_instance_uid,
            func.length(reports.c.encoded).label("size_bytes"),
            reports.c.archived_at,
            reports.c.purged_at,
        )
        .where(reports.c.exam_id == exam_id)
        .order_by(reports.c.report_id)
    )
    return tuple(StoredReport(**row._mapping) for row in connection.execute(wanted))


def _deliveries(connection: Connection, exam_id: int) -> tuple[DeliveryAnswer, ...]:
    wanted = (
        select(deliveries)
        .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(reports.c.exam_id == exam_id)
        .order_by(deliveries.c.destination, reports.c.report_id)
    )
    return tuple(DeliveryAnswer(**row._mapping) for row in connection.execute(wanted))


def _journal(connection: Connection, exam_id: int) -> tuple[JournalEntry, ...]:
    wanted = (
        select(journal.c.at, journal.c.event, journal.c.detail)
        .where(journal.c.exam_id == exam_id)
        .order_by(journal.c.entry_id)
    )
    return tuple(JournalEntry(**row._mapping) for row in connection.execute(wanted))
