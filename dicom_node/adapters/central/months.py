"""Whole months of the centre, taken out of its tables and put back, region by region."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path

from sqlalchemy import Connection, text

from dicom_node.adapters.central.database import OWNER_SECONDS, CentralDatabase
from dicom_node.adapters.central.migrate import take_turn
from dicom_node.domain.errors import Fault, Permanent

_TABLES = ("exams", "heartbeats", "deliveries")
"""In this order they are attached; detached the other way round, so that there is never a delivery
without its exam."""
_WAIT_SECONDS = 60
"""For transactions that still use a month that is being detached."""


@dataclass(frozen=True, kw_only=True)
class MonthTable:
    """The rows of a month and region in one table: a partition, or a table by itself."""

    region: str
    month: date
    """Its first day; months begin and end in UTC."""
    parent: str
    name: str
    rows: int
    bytes: int
    """With its indexes."""


class CentralMonths:
    """Detaches and attaches as the owner of the database. Raises as :class:`CentralDatabase`."""

    def __init__(self, url: str, *, password_file: Path | None = None) -> None:
        self._database = CentralDatabase(url, password_file, seconds=OWNER_SECONDS)

    def attached(self, before: date, region: str | None = None) -> tuple[MonthTable, ...]:
        """What :meth:`detach` would detach: months before ``before``, the first day of a month, of
        one region or of all. Raises ``Permanent`` (CENTRAL_REFUSED) where that is not over yet."""
        if before > datetime.now(UTC).date():
            raise Permanent(
                Fault.CENTRAL_REFUSED,
                f"the months before {before:%Y-%m} are not over: nodes still write to them",
            )
        with self._database.transaction() as connection:
            found = [item for item in _partitions(connection) if item.month < before]
            return tuple(
                _table(connection, item.region, item.month, item.parent)
                for item in found
                if region in {None, item.region}
            )

    def detach(self, tables: Iterable[MonthTable]) -> None:
        """Make tables by themselves of these partitions. Nodes and reports go on; from here on a
        node is refused exams of these months.

        What is interrupted is finished by another call; a transaction that uses a month for more
        than a minute ends it with ``Transient`` (CENTRAL_UNAVAILABLE).
        """
        for (region, month), of_month in groupby(
            tables, key=lambda item: (item.region, item.month)
        ):
            with self._database.connection() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql(f"SET statement_timeout = '{_WAIT_SECONDS}s'")
                take_turn(connection, until_end_of="session")
                connection.execute(
                    text(
                        "INSERT INTO detached_months (region, month) VALUES (:region, :month) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    {"region": region, "month": month},
                )
                for item in of_month:
                    _detach(connection, item)

    def attach(self, month: date, region: str | None = None) -> tuple[MonthTable, ...]:
        """Make partitions again of the tables of a month that was detached, from all regions or
        one; what a node has sent again since then under another time stands only there.

        Raises ``Permanent`` (CENTRAL_REFUSED) when no such month was detached or a table is gone.
        """
        with self._database.transaction() as connection:
            take_turn(connection)
            regions = connection.execute(
                text(
                    "DELETE FROM detached_months WHERE month = :month "
                    "AND region = coalesce(:region, region) RETURNING region"
                ),
                {"month": month, "region": region},
            ).scalars()
            found = tuple(
                table
                for of_region in sorted(regions)
                for table in _attach(connection, of_region, month)
            )
        if not found:
            raise Permanent(Fault.CENTRAL_REFUSED, f"the month {month:%Y-%m} is not detached")
        return found


@dataclass(frozen=True, kw_only=True)
class _Partition:
    region: str
    month: date
    parent: str
    is_pending: bool
    """A detaching of it was interrupted."""


def _partitions(connection: Connection) -> list[_Partition]:
    """All that are attached, by region and month, deliveries before exams."""
    found = connection.execute(
        text(
            """
            SELECT substr(in_region.relname, length(parent) + 2) AS region,
                to_date(right(in_month.relname, 7), 'YYYY_MM') AS month, parent,
                of_month.inhdetachpending AS is_pending
            FROM unnest(CAST(:parents AS text[])) WITH ORDINALITY AS wanted (parent, turn)
            JOIN pg_inherits AS of_region ON of_region.inhparent = to_regclass(parent)
            JOIN pg_class AS in_region ON in_region.oid = of_region.inhrelid
            JOIN pg_inherits AS of_month ON of_month.inhparent = in_region.oid
            JOIN pg_class AS in_month ON in_month.oid = of_month.inhrelid
            ORDER BY region, month, turn DESC
            """
        ),
        {"parents": list(_TABLES)},
    )
    return [_Partition(**row._mapping) for row in found]


def _detach(connection: Connection, item: MonthTable) -> None:
    pending = connection.execute(
        text("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(:name)"),
        {"name": _quoted(item.name)},
    ).scalar_one_or_none()
    if pending is None:
        return
    connection.exec_driver_sql(
        f"ALTER TABLE {_quoted(f'{item.parent}_{item.region}')} DETACH PARTITION "
        f"{_quoted(item.name)} {'FINALIZE' if pending else 'CONCURRENTLY'}"
    )


def _attach(connection: Connection, region: str, month: date) -> Iterator[MonthTable]:
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    attached = {
        item.parent
        for item in _partitions(connection)
        if (item.region, item.month) == (region, month)
    }
    for parent in _TABLES:
        name = _name(parent, region, month)
        if parent in attached:
            continue
        if not connection.execute(
            text("SELECT to_regclass(:name)"), {"name": _quoted(name)}
        ).scalar_one():
            raise Permanent(
                Fault.CENTRAL_REFUSED,
                f"there is no table {name}: restore it from its dump, then attach again",
            )
        if parent != "heartbeats":
            _forget_twins(connection, name, region)
        connection.exec_driver_sql(
            f"ALTER TABLE {_quoted(f'{parent}_{region}')} ATTACH PARTITION {_quoted(name)} "
            f"FOR VALUES FROM ('{month} 00:00Z') TO ('{following} 00:00Z')"
        )
        yield _table(connection, region, month, parent)


def _forget_twins(connection: Connection, name: str, region: str) -> None:
    """Exams that came again since, under another time of arrival, must not stand twice."""
    connection.execute(
        text(
            f"DELETE FROM {_quoted(name)} AS old USING exams AS new WHERE new.region = :region "
            "AND new.exam_pseudonym = old.exam_pseudonym AND new.received_at <> old.received_at"
        ),
        {"region": region},
    )


def _table(connection: Connection, region: str, month: date, parent: str) -> MonthTable:
    name = _name(parent, region, month)
    rows, size = connection.execute(
        text(f"SELECT count(*), pg_total_relation_size(:name) FROM {_quoted(name)}"),
        {"name": _quoted(name)},
    ).one()
    return MonthTable(region=region, month=month, parent=parent, name=name, rows=rows, bytes=size)


def _quoted(name: str) -> str:
    """As SQL: a region's name has no quotation mark (the schema's CHECK on ``nodes``)."""
    return f'"{name}"'


def _name(parent: str, region: str, month: date) -> str:
    return f"{parent}_{region}_{month:%Y_%m}"
