"""The port CentralArchive on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import array

from dicom_node.adapters.central.database import NODE_SECONDS, CentralDatabase
from dicom_node.adapters.central.schema import (
    deliveries,
    exams,
    heartbeats,
    institutions,
    models,
    nodes,
)
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.record import ExamRecord, Heartbeat


@dataclass(frozen=True, kw_only=True)
class KnownExam:
    """An exam as the centre names it."""

    exam_pseudonym: str
    received_at: datetime
    institution_id: str


class PostgresArchive:
    """One node's way into the central database."""

    def __init__(
        self, url: str, *, password_file: Path | None = None, seconds: int = NODE_SECONDS
    ) -> None:
        """``seconds``: how long a transaction may take."""
        self._database = CentralDatabase(url, password_file, seconds=seconds)

    def last_batch(self) -> int:
        """The last batch of this node that the centre has, 0 before the first."""
        own = select(nodes.c.last_batch).where(nodes.c.node == func.own_node())
        with self._database.transaction() as connection:
            last: int | None = connection.execute(own).scalar_one_or_none()
        if last is None:
            raise Permanent(
                Fault.CENTRAL_REFUSED,
                "the central database does not know this node's role: its owner has to run "
                "SELECT admit_node(role, region, node)",
            )
        return last

    def store(self, records: Sequence[ExamRecord], *, batch: int) -> None:
        """Insert or replace these exams and their deliveries, and count the batch, in one
        transaction."""
        with self._database.transaction() as connection:
            _make_partitions(connection, {record.received_at for record in records})
            _insert(connection, institutions, _institutions(records))
            _insert(connection, models, _models(records))
            _forget_twins(connection, records)
            _upsert(connection, exams, [_exam(record) for record in records])
            _upsert(connection, deliveries, _deliveries(records))
            connection.execute(
                update(nodes)
                .where(nodes.c.node == func.own_node())
                .values(last_batch=func.greatest(nodes.c.last_batch, batch))
            )

    def exams_since(self, at: datetime) -> tuple[KnownExam, ...]:
        """What the centre knows of this node's exams that were received from then on."""
        wanted = (
            select(exams.c.exam_pseudonym, exams.c.received_at, exams.c.institution_id)
            .where(exams.c.node == func.own_node(), exams.c.received_at >= at)
            .order_by(exams.c.received_at)
        )
        with self._database.transaction() as connection:
            return tuple(KnownExam(**row._mapping) for row in connection.execute(wanted))

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the node runs."""
        values = asdict(heartbeat)
        at, version = values.pop("at"), values.pop("version")
        with self._database.transaction() as connection:
            _make_partitions(connection, {at})
            _upsert(connection, heartbeats, [values | {"received_at": at}])
            connection.execute(
                update(nodes)
                .where(nodes.c.node == func.own_node())
                .values(version=version, last_seen_at=at)
            )


def _make_partitions(connection: Connection, times: set[datetime]) -> None:
    for _, at in sorted({(at.year, at.month): at for at in times}.items()):
        connection.execute(select(func.make_own_partition(at)))


def _forget_twins(connection: Connection, records: Sequence[ExamRecord]) -> None:
    """An exam that was lost with the node's disk and sent again has another time of arrival: it
    must not stand twice."""
    names = array([record.exam_pseudonym for record in records])
    times = array([record.received_at for record in records], type_=exams.c.received_at.type)
    connection.execute(select(func.forget_twins(names, times)))


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    new = postgresql.insert(table)
    changed: dict[str, Any] = {
        column.name: new.excluded[column.name] for column in table.c if not column.primary_key
    }
    if "forwarded_at" in table.c:
        changed["forwarded_at"] = func.clock_timestamp()
    upsert = new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
    connection.execute(upsert, rows)


def _key(record: ExamRecord) -> dict[str, Any]:
    return {
        "region": record.region,
        "received_at": record.received_at,
        "exam_pseudonym": record.exam_pseudonym,
    }


def _institutions(records: Sequence[ExamRecord]) -> list[dict[str, Any]]:
    named = {(record.region, record.institution_id) for record in records}
    return [{"region": region, "institution_id": name} for region, name in sorted(named)]


def _models(records: Sequence[ExamRecord]) -> list[dict[str, Any]]:
    used = {record.result.model for record in records if record.result is not None}
    return [
        {"model_sha256": model.sha256, "model_name": model.name, "model_version": model.version}
        for model in sorted(used, key=lambda model: model.sha256)
    ]


def _exam(record: ExamRecord) -> dict[str, Any]:
    result = record.result
    return {
        **_key(record),
        **asdict(record.times),
        "node": record.node,
        "institution_id": record.institution_id,
        "patient_pseudonym": record.patient_pseudonym,
        "key_id": record.key_id,
        "chronological_age_months": record.chronological_age_months,
        "sex": record.sex,
        "outcome": record.outcome,
        "reason": record.reason,
        "bone_age_months": result.bone_age_months if result else None,
        "sd_months": result.sd_months if result else None,
        "z_score": result.z_score if result else None,
        "model_sha256": result.model.sha256 if result else None,
        "object_kinds": [str(kind) for kind in record.object_kinds],
    }


def _deliveries(records: Sequence[ExamRecord]) -> list[dict[str, Any]]:
    return [
        {**_key(record), "node": record.node, **asdict(delivery)}
        for record in records
        for delivery in record.deliveries
    ]
