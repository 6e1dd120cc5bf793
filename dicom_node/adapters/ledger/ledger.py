"""The ledger of the stages: every method is one transaction.

It is on stable storage when the method returns, but for claims, for what screening and the network
found and for the answers of destinations: a power cut may undo these, and the same job is run
again. Killed processes undo nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, select, text, update
from sqlalchemy.dialects import sqlite

from dicom_node.adapters.ledger import jobs as steps
from dicom_node.adapters.ledger import rows
from dicom_node.adapters.ledger.arrivals import enter
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.jobs import JournalLine
from dicom_node.adapters.ledger.outbox import note_change
from dicom_node.adapters.ledger.schema import (
    QUEUED,
    deliveries,
    exams,
    jobs,
    predictions,
    reports,
)
from dicom_node.adapters.ledger.together import Together
from dicom_node.domain.assessment import Prediction, PriorResult
from dicom_node.domain.delivery import Answer, Delivery, PreviousReport, ReportObject, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.exam import Exam, Instance, Outcome, Receipt
from dicom_node.domain.job import TO_DESTINATIONS, Job, JobEvent, Stage
from dicom_node.domain.retry import Park, RetryAt
from dicom_node.ports import Clock, Eligibility

_EXAM_NAMES = frozenset(exams.c.keys())
_CHANGE_EXAM = update(exams).where(exams.c.exam_id == bindparam("changed_exam"))
_OWN_REPORT = select(reports.c.report_id).where(reports.c.sop_instance_uid == bindparam("uid"))
_STORE_REPORTS = sqlite.insert(reports).on_conflict_do_nothing(index_elements=["sop_instance_uid"])
_NEW_PREDICTION, _NEW_ANSWER = sqlite.insert(predictions), sqlite.insert(deliveries)
_STORE_PREDICTION = _NEW_PREDICTION.on_conflict_do_update(
    index_elements=["exam_id"],
    set_={column.name: column for column in _NEW_PREDICTION.excluded if column.name != "exam_id"},
)
_STORE_ANSWER = _NEW_ANSWER.on_conflict_do_update(
    index_elements=["sop_instance_uid", "destination"],
    set_={
        name: _NEW_ANSWER.excluded[name]
        for name in (*(field.name for field in fields(Answer)), "verdict", "answered_at")
    },
    where=deliveries.c.verdict != Verdict.STORED,
)


class SqlLedger:
    """The port ``Ledger`` on a migrated SQLite file; see there for what each method promises.

    Threads of one process share it. Every process opens its own: never carry it over a fork.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock
        self._recorded_together = Together(self._record)

    def close(self) -> None:
        """Close the file; the ledger is not used after that."""
        self._database.close()

    def record_instance(self, instance: Instance) -> tuple[int, Receipt]:
        """Enter a kept instance, its exam and job(SCREEN); return the exam's id and what it was.

        Threads that come at the same time share a transaction.
        """
        return self._recorded_together(instance)

    def _record(self, arrived: Sequence[Instance]) -> list[tuple[int, Receipt]]:
        now = self._clock.now()
        with self._database.write() as connection:
            return [enter(connection, instance, now=now) for instance in arrived]

    def claim(
        self,
        stages: Sequence[Stage],
        *,
        owner: str,
        lease_seconds: float,
        limit: int = 1,
        destination: str | None = None,
    ) -> list[Job]:
        """Lease due jobs: later stages first, then those that have been due longest."""
        now = self._clock.now()
        expires_at = now + timedelta(seconds=lease_seconds)
        lease = steps.Lease(owner=owner, now=now, expires_at=expires_at)
        with self._database.write(durable=False) as connection:
            steps.end_expired_leases(connection, now=now)
            return steps.claim_due(connection, stages, lease, limit=limit, destination=destination)

    def expire_leases(self, owner: str) -> int:
        """End the leases of a process that died, as if they had run out; return their number."""
        with self._database.write() as connection:
            return steps.end_leases_of(connection, owner, now=self._clock.now())

    def expire_all_leases(self) -> int:
        """At the start of a node nobody holds a job, whatever its processes were called before;
        return how many there were."""
        with self._database.write() as connection:
            return steps.end_all_leases(connection, now=self._clock.now())

    def mend_clock_step(self) -> int:
        """Make jobs due that a clock which was set back would hold up; return their number.

        A step of less than 15 minutes is not seen: it delays a job by no more than that.
        """
        with self._database.write() as connection:
            return steps.mend_clock_step(connection, now=self._clock.now())

    def hurry(self, destination: str) -> int:
        """What waits for a destination that did not answer is due now; return how many jobs."""
        with self._database.write() as connection:
            return steps.hurry(connection, destination)

    def open_destinations(self) -> frozenset[str]:
        """Destinations that queued jobs name."""
        named = (
            select(jobs.c.destination)
            .where(text(QUEUED), jobs.c.stage.in_(TO_DESTINATIONS))
            .distinct()
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(named).scalars())

    def exam(self, exam_id: int) -> Exam:
        """One exam. Raises ``KeyError`` when there is none."""
        with self._database.read() as connection:
            return rows.exam(connection, exam_id)

    def eligibility(self, exam_id: int) -> Eligibility | None:
        """What screening found, None when the exam was not eligible."""
        with self._database.read() as connection:
            return rows.eligibility(connection, exam_id)

    def prediction(self, exam_id: int) -> Prediction | None:
        """The stored prediction, None before or without one."""
        with self._database.read() as connection:
            return rows.prediction(connection, exam_id)

    def prior_results(self, exam_id: int) -> tuple[PriorResult, ...]:
        """What was assessed of the same patient at earlier study dates, oldest first."""
        with self._database.read() as connection:
            return rows.prior_results(connection, exam_id)

    def previous_report(self, exam_id: int) -> PreviousReport | None:
        """The last report about the exam's SOP instance from its institution."""
        with self._database.read() as connection:
            return rows.previous_report(connection, exam_id)

    def complete_screen(self, job: Job, eligibility: Eligibility) -> None:
        """Eligible: store it and queue job(INFER)."""
        with self._complete(job, JournalLine.SCREENED, durable=False) as (connection, now):
            _change_exam(
                connection,
                job,
                study_instance_uid=eligibility.study_instance_uid,
                sex=eligibility.sex,
                laterality=eligibility.laterality,
                view_position=eligibility.view_position,
                chronological_age_months=eligibility.chronological_age_months,
                study_date=eligibility.study_date,
                patient_pseudonym=eligibility.patient_pseudonym,
                notes=list(eligibility.notes),
            )
            steps.enqueue(connection, job.exam_id, Stage.INFER, now=now)

    def complete_ignored(self, job: Job, reason: Reason, *, study_instance_uid: str) -> None:
        """Not ours: the exam ends as IGNORED."""
        with self._complete(job, JournalLine.IGNORED, reason=reason) as (connection, _):
            _change_exam(
                connection,
                job,
                outcome=Outcome.IGNORED,
                reason=reason,
                study_instance_uid=study_instance_uid,
            )

    def complete_not_assessed(
        self, job: Job, reason: Reason, *, study_instance_uid: str, report: bool
    ) -> None:
        """The exam ends as NOT_ASSESSED, without an earlier prediction; with ``report``,
        job(REPORT) is queued."""
        with self._complete(job, JournalLine.NOT_ASSESSED, reason=reason) as (connection, now):
            connection.execute(delete(predictions).where(predictions.c.exam_id == job.exam_id))
            _change_exam(
                connection,
                job,
                outcome=Outcome.NOT_ASSESSED,
                reason=reason,
                study_instance_uid=study_instance_uid,
            )
            if report:
                steps.enqueue(connection, job.exam_id, Stage.REPORT, now=now)

    def complete_infer(self, job: Job, prediction: Prediction) -> None:
        """Store the prediction, in place of an earlier one, set the outcome ASSESSED and queue
        job(REPORT)."""
        model = f"{prediction.model.name}@{prediction.model.version}"
        assessed = self._complete(job, JournalLine.ASSESSED, durable=False, model=model)
        with assessed as (connection, now):
            values = rows.prediction_values(prediction)
            connection.execute(_STORE_PREDICTION, {"exam_id": job.exam_id, **values})
            _change_exam(connection, job, outcome=Outcome.ASSESSED, reason=None)
            steps.enqueue(connection, job.exam_id, Stage.REPORT, now=now)

    def complete_report(
        self,
        job: Job,
        objects: Sequence[ReportObject],
        destinations: Sequence[str],
        *,
        revision: int,
    ) -> None:
        """Store the encoded objects of this revision, those that are not stored yet, and queue one
        job(DELIVER) per destination.

        Without destinations the exam is done.
        """
        count = len(objects)
        reported = self._complete(job, JournalLine.REPORTED, objects=count, revision=revision)
        with reported as (connection, now):
            common = {"exam_id": job.exam_id, "revision": revision}
            lines = [common | rows.report_values(made) for made in objects]
            connection.execute(_STORE_REPORTS, lines)
            for destination in dict.fromkeys(destinations):
                steps.enqueue(
                    connection, job.exam_id, Stage.DELIVER, now=now, destination=destination
                )
            if not destinations:
                steps.note(connection, job.exam_id, JournalLine.NOTHING_TO_DELIVER, now=now)

    def report_objects(self, exam_id: int) -> tuple[ReportObject, ...]:
        """The encoded objects of the last revision of an exam's report, in the order in which they
        were stored."""
        with self._database.read() as connection:
            return rows.report_objects(connection, exam_id)

    def record_delivery(self, job: Job, delivery: Delivery) -> None:
        """Store a destination's answer for one object; what is stored there stays stored."""
        now = self._clock.now()
        with self._database.write(durable=False) as connection:
            steps.check_lease(connection, job)
            _upsert_delivery(connection, delivery, now=now)
            steps.note_job(
                connection,
                job,
                JournalLine.ANSWERED,
                now=now,
                object=delivery.sop_instance_uid,
                status=f"0x{delivery.answer.status:04X}",
                verdict=delivery.verdict,
                **_sent_as(delivery),
            )

    def delivered(self, exam_id: int, destination: str) -> dict[str, Answer]:
        """What this destination has stored of all reports about the exam's image."""
        with self._database.read() as connection:
            return rows.delivered(connection, exam_id, destination)

    def complete_deliver(self, job: Job, *, confirm: bool) -> None:
        """All objects are stored at the destination; with ``confirm``, job(CONFIRM) is queued."""
        with self._complete(job, JournalLine.DELIVERED) as (connection, now):
            if confirm:
                steps.enqueue(
                    connection, job.exam_id, Stage.CONFIRM, now=now, destination=job.destination
                )

    def fail(self, job: Job, decision: RetryAt | Park) -> None:
        """Queue the job again or park it."""
        now = self._clock.now()
        why = {"fault": decision.fault, "detail": decision.detail}
        with self._database.write() as connection:
            if isinstance(decision, Park):
                steps.leave(connection, job, JobEvent.PARK, **why)
                note_change(connection, job.exam_id, now=now)
                line = JournalLine.PARKED
            else:
                run_after = decision.run_after
                steps.leave(connection, job, JobEvent.RETRY_LATER, run_after=run_after, **why)
                line = JournalLine.RETRY_LATER
            steps.note_job(connection, job, line, now=now, fault=decision.fault)

    def is_own_report(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object."""
        with self._database.read() as connection:
            return connection.execute(_OWN_REPORT, {"uid": sop_instance_uid}).first() is not None

    @contextmanager
    def _complete(
        self, job: Job, line: JournalLine, *, durable: bool = True, **facts: object
    ) -> Iterator[tuple[Connection, datetime]]:
        now = self._clock.now()
        with self._database.write(durable=durable) as connection:
            steps.leave(connection, job, JobEvent.COMPLETE, fault=None, detail="")
            steps.note_job(connection, job, line, now=now, **facts)
            yield connection, now
            note_change(connection, job.exam_id, now=now)


def _change_exam(connection: Connection, job: Job, **values: object) -> None:
    assert values.keys() <= _EXAM_NAMES  # SQLAlchemy would leave out what is no column
    connection.execute(_CHANGE_EXAM, {"changed_exam": job.exam_id, **values})


def _sent_as(delivery: Delivery) -> dict[str, str]:
    """What to say where the object went as another SOP class than the one it was made in."""
    if delivery.answer.sent_sop_instance_uid == delivery.sop_instance_uid:
        return {}
    answer = delivery.answer
    return {"as": answer.sent_sop_instance_uid, "sop_class": answer.sent_sop_class_uid}


def _upsert_delivery(connection: Connection, delivery: Delivery, *, now: datetime) -> None:
    answer = asdict(delivery.answer) | {"verdict": delivery.verdict, "answered_at": now}
    key = {"sop_instance_uid": delivery.sop_instance_uid, "destination": delivery.destination}
    connection.execute(_STORE_ANSWER, key | answer)
