"""Storage Commitment in the ledger: what destinations prove, and what the node promised others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, select, text, update
from sqlalchemy.dialects import sqlite

from dicom_node.adapters.ledger import jobs as steps
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.jobs import FRESH, JournalLine
from dicom_node.adapters.ledger.schema import (
    QUEUED,
    commitment_promises,
    commitment_requests,
    deliveries,
    instances,
    jobs,
    reports,
)
from dicom_node.domain.commitment import (
    CommitmentRequest,
    CommitmentResult,
    Evidence,
    Promise,
    Reference,
    SentObject,
)
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.job import Job, JobEvent, Stage
from dicom_node.ports import Clock, Holding

_MAX_AT_ONCE = 100
_TIME_ON_ITS_OWN = timedelta(seconds=5)
"""So long the result of a request may go back on the association that it came on."""
_UNKNOWN = {"evidence": None, "evidence_at": None}


class SqlCommitments:
    """The port ``Commitments`` on a migrated ledger file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def unproven(self, job: Job) -> tuple[SentObject, ...]:
        """What the destination has answered with success and is not known to keep."""
        with self._database.read() as connection:
            return tuple(
                map(_sent_object, connection.execute(_unproven(job.exam_id, job.destination)))
            )

    def asked_at(self, job: Job) -> datetime | None:
        """When the destination was last asked without having answered."""
        last = select(func.max(commitment_requests.c.requested_at)).where(_of_job(job))
        with self._database.read() as connection:
            asked: datetime | None = connection.execute(last).scalar_one()
            return asked

    def ask(self, job: Job, transaction_uid: str) -> None:
        """Remember a request before it is sent."""
        now = self._clock.now()
        with self._database.write() as connection:
            steps.check_lease(connection, job)
            connection.execute(
                insert(commitment_requests).values(
                    transaction_uid=transaction_uid,
                    exam_id=job.exam_id,
                    destination=job.destination,
                    requested_at=now,
                )
            )
            line = JournalLine.COMMITMENT_ASKED
            steps.note_job(connection, job, line, now=now, transaction=transaction_uid)

    def withdraw(self, job: Job, transaction_uid: str) -> None:
        """A request that the destination does not take is none."""
        with self._database.write() as connection:
            steps.check_lease(connection, job)
            connection.execute(
                delete(commitment_requests).where(
                    commitment_requests.c.transaction_uid == transaction_uid
                )
            )

    def record(self, job: Job, evidence: Mapping[str, Evidence]) -> None:
        """What a query found."""
        with self._database.write() as connection:
            steps.check_lease(connection, job)
            self._record(connection, job.exam_id, job.destination, evidence)

    def record_result(self, result: CommitmentResult) -> bool:
        """A destination's result: the request is answered; the job that waits for it is due where
        all is well, and else asks again in its own time."""
        asked = select(commitment_requests).where(
            commitment_requests.c.transaction_uid == result.transaction_uid
        )
        with self._database.write() as connection:
            request = connection.execute(asked).first()
            if request is None:
                return False
            self._record(connection, request.exam_id, request.destination, result.evidence)
            connection.execute(
                delete(commitment_requests).where(
                    commitment_requests.c.transaction_uid == result.transaction_uid
                )
            )
            waiting = _unproven(request.exam_id, request.destination)
            if connection.execute(waiting).first() is None:
                _make_due(connection, request, now=self._clock.now())
        return True

    def complete(self, job: Job) -> None:
        """Nothing is left to prove."""
        with self._database.write() as connection:
            steps.leave(connection, job, JobEvent.COMPLETE, fault=None, detail="")
            _forget_requests(connection, job)
            steps.note_job(connection, job, JournalLine.CONFIRMED, now=self._clock.now())

    def send_again(self, job: Job, lost: Sequence[SentObject]) -> None:
        """Forget that these were stored, and queue job(DELIVER) again."""
        now = self._clock.now()
        uids = [item.made_sop_instance_uid for item in lost]
        with self._database.write() as connection:
            steps.leave(connection, job, JobEvent.COMPLETE, fault=None, detail="")
            _forget_requests(connection, job)
            connection.execute(
                update(deliveries)
                .where(deliveries.c.sop_instance_uid.in_(uids), _at(job.destination))
                .values(verdict=Verdict.TRY_AGAIN, losses=deliveries.c.losses + 1, **_UNKNOWN)
            )
            steps.enqueue(
                connection, job.exam_id, Stage.DELIVER, now=now, destination=job.destination
            )
            steps.note_job(connection, job, JournalLine.SENT_AGAIN, now=now, objects=len(uids))

    def _record(
        self,
        connection: Connection,
        exam_id: int,
        destination: str,
        evidence: Mapping[str, Evidence],
    ) -> None:
        now = self._clock.now()
        for uid, found in evidence.items():
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.sent_sop_instance_uid == uid,
                    deliveries.c.verdict == Verdict.STORED,
                    deliveries.c.sop_instance_uid.in_(_uids_of(exam_id)),
                    _at(destination),
                )
                .values(evidence=found, evidence_at=now)
            )
            facts = {"destination": destination, "object": uid, "evidence": found}
            steps.note(connection, exam_id, JournalLine.EVIDENCE, now=now, **facts)


class SqlPromises:
    """The port ``Promises`` on a migrated ledger file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def promise(self, request: CommitmentRequest, *, ae_title: str, institution_id: str) -> bool:
        """Remember a request, on stable storage; the same one again is answered again. False: its
        Transaction UID stands for other objects."""
        now = self._clock.now()
        objects = [[item.sop_class_uid, item.sop_instance_uid] for item in request.references]
        new = sqlite.insert(commitment_promises)
        asked = new.values(
            ae_title=ae_title,
            transaction_uid=request.transaction_uid,
            institution_id=institution_id,
            objects=objects,
            asked_at=now,
            attempt=0,
            run_after=now + _TIME_ON_ITS_OWN,
        )
        again = asked.on_conflict_do_update(
            index_elements=["ae_title", "transaction_uid"],
            set_={"attempt": 0, "run_after": now + _TIME_ON_ITS_OWN},
            where=commitment_promises.c.objects == new.excluded.objects,
        )
        with self._database.write() as connection:
            return connection.execute(again).rowcount == 1

    def open(self, ae_titles: Sequence[str], *, due: bool) -> tuple[Promise, ...]:
        """Requests that wait for their result, the oldest first."""
        waiting = (
            select(commitment_promises)
            .where(
                commitment_promises.c.run_after.is_not(None),
                commitment_promises.c.ae_title.in_(ae_titles),
            )
            .order_by(commitment_promises.c.promise_id)
            .limit(_MAX_AT_ONCE)
        )
        if due:
            waiting = waiting.where(commitment_promises.c.run_after <= self._clock.now())
        with self._database.read() as connection:
            return tuple(map(_promise, connection.execute(waiting)))

    def holdings(self, promise: Promise) -> tuple[Holding, ...]:
        """What the node received of the objects that a request names, from its institution."""
        uids = [item.sop_instance_uid for item in promise.request.references]
        held = (
            select(instances)
            .where(
                instances.c.sop_instance_uid.in_(uids),
                instances.c.institution_id == promise.institution_id,
                instances.c.purged_at.is_(None),
            )
            .order_by(instances.c.instance_id)
        )
        with self._database.read() as connection:
            return tuple(map(_holding, connection.execute(held)))

    def answered(self, promise: Promise) -> None:
        """The requester has the result."""
        self.failed(promise, run_after=None)

    def failed(self, promise: Promise, *, run_after: datetime | None) -> None:
        """The result did not arrive; None: it is not tried again."""
        with self._database.write() as connection:
            connection.execute(
                update(commitment_promises)
                .where(
                    commitment_promises.c.promise_id == promise.promise_id,
                    commitment_promises.c.run_after.is_not(None),
                )
                .values(run_after=run_after, attempt=commitment_promises.c.attempt + 1)
            )


def begin_again(connection: Connection, job: Job) -> None:
    """An operator tries a parked job(CONFIRM) again: the destination gets its chances back."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.sop_instance_uid.in_(_uids_of(job.exam_id)), _at(job.destination))
        .values(losses=0)
    )


def _unproven(exam_id: int, destination: str) -> Select[Any]:
    last = select(func.max(reports.c.revision)).where(reports.c.exam_id == exam_id)
    return (
        select(deliveries, reports.c.series_instance_uid, reports.c.encoded)
        .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .where(
            reports.c.exam_id == exam_id,
            reports.c.revision == last.scalar_subquery(),
            deliveries.c.verdict == Verdict.STORED,
            deliveries.c.evidence.is_distinct_from(Evidence.KEPT),
            _at(destination),
        )
        .order_by(reports.c.report_id)
    )


def _sent_object(row: Row[Any]) -> SentObject:
    from pydicom import dcmread  # the supervisor has no other need of it

    header = dcmread(BytesIO(row.encoded), specific_tags=["StudyInstanceUID"])
    return SentObject(
        reference=Reference(
            sop_class_uid=row.sent_sop_class_uid, sop_instance_uid=row.sent_sop_instance_uid
        ),
        study_instance_uid=str(header.StudyInstanceUID),
        series_instance_uid=row.series_instance_uid,
        made_sop_instance_uid=row.sop_instance_uid,
        answered_at=row.answered_at,
        evidence=row.evidence,
        evidence_at=row.evidence_at,
        losses=row.losses,
    )


def _make_due(connection: Connection, request: Row[Any], *, now: datetime) -> None:
    connection.execute(
        update(jobs)
        .where(
            text(QUEUED),
            jobs.c.exam_id == request.exam_id,
            jobs.c.stage == Stage.CONFIRM,
            jobs.c.destination == request.destination,
        )
        .values(run_after=now, **FRESH)
    )


def _forget_requests(connection: Connection, job: Job) -> None:
    connection.execute(delete(commitment_requests).where(_of_job(job)))


def _of_job(job: Job) -> Any:
    return and_(
        commitment_requests.c.exam_id == job.exam_id,
        commitment_requests.c.destination == job.destination,
    )


def _at(destination: str) -> Any:
    return deliveries.c.destination == destination


def _uids_of(exam_id: int) -> Select[tuple[str]]:
    return select(reports.c.sop_instance_uid).where(reports.c.exam_id == exam_id)


def _promise(row: Row[Any]) -> Promise:
    references = tuple(
        Reference(sop_class_uid=sop_class, sop_instance_uid=instance)
        for sop_class, instance in row.objects
    )
    return Promise(
        promise_id=row.promise_id,
        ae_title=row.ae_title,
        institution_id=row.institution_id,
        request=CommitmentRequest(transaction_uid=row.transaction_uid, references=references),
        attempt=row.attempt,
    )


def _holding(row: Row[Any]) -> Holding:
    return Holding(
        reference=Reference(sop_class_uid=row.sop_class_uid, sop_instance_uid=row.sop_instance_uid),
        content_sha256=row.content_sha256,
    )
