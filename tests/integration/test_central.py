"""The centre on a real PostgreSQL: its schema, and what a node tells it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.migrate import head_revision, migrate
from dicom_node.adapters.central.months import CentralMonths
from dicom_node.adapters.central.schema import metadata
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Outcome
from dicom_node.domain.record import DeliveryOutcome, Heartbeat
from tests.builders.records import RECEIVED_AT, record
from tests.integration.peers import free_port
from tests.peers.postgres import Postgres, make_centre, needs_postgres, running_centre

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
        yield running


@pytest.fixture
def centre(cluster: Postgres) -> Postgres:
    """Without rows of earlier tests."""
    cluster.sql("TRUNCATE exams, deliveries, heartbeats, feedback, institutions, models")
    cluster.sql("UPDATE nodes SET last_batch = 0, version = NULL, last_seen_at = NULL")
    return cluster


def archive(centre: Postgres, role: str = "node_sp") -> PostgresArchive:
    return PostgresArchive(centre.url(role))


def test_the_code_knows_the_columns_as_they_are(cluster: Postgres) -> None:
    engine = create_engine(cluster.url())
    made_by_the_database = {("institutions", "first_seen_at")}
    for table in metadata.tables.values():
        there = {
            column["name"]: column["type"] for column in inspect(engine).get_columns(table.name)
        }
        assert set(table.c.keys()) == {
            name for name in there if (table.name, name) not in made_by_the_database
        }
        for column in table.c:
            ours, theirs = column.type, there[column.name]
            compiled = {str(kind.compile(engine.dialect)) for kind in (ours, theirs)}
            assert len(compiled) == 1 or column.name == "role_name"
    engine.dispose()


def test_migrating_again_or_at_once_changes_nothing(cluster: Postgres) -> None:
    ends: list[str] = []
    threads = [
        threading.Thread(target=lambda: ends.append(migrate(cluster.url()))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [head_revision()] * 3


@pytest.mark.parametrize("revision", ["c0001", "c0002"])
def test_a_centre_of_an_earlier_revision_keeps_its_exams(cluster: Postgres, revision: str) -> None:
    make_centre(cluster, revision)
    archive(cluster).store([record()], batch=1)
    assert migrate(cluster.url()) == head_revision()
    assert cluster.sql("SELECT exams FROM report_usage", role="analyst") == "1"
    owner = CentralMonths(cluster.url())
    owner.detach(owner.attached(date(2026, 4, 1)))
    with pytest.raises(Permanent, match="detached"):
        archive(cluster).store([record()], batch=2)
    make_centre(cluster)


def test_a_newer_centre_is_refused(cluster: Postgres) -> None:
    cluster.sql("UPDATE alembic_version SET version_num = 'c9999'")
    try:
        with pytest.raises(Permanent, match="newer version"):
            migrate(cluster.url())
    finally:
        cluster.sql(f"UPDATE alembic_version SET version_num = '{head_revision()}'")


def test_an_exam_lies_in_the_partition_of_its_region_and_month(centre: Postgres) -> None:
    later = record(2, received_at=RECEIVED_AT + timedelta(hours=4), times=record().times)
    later = replace(later, times=replace(later.times, reported_at=None), deliveries=())
    archive(centre).store([record(1), later], batch=1)
    assert centre.sql("SELECT tableoid::regclass FROM exams ORDER BY received_at").split() == [
        '"exams_SP_2026_03"',
        '"exams_SP_2026_04"',
    ]
    assert centre.sql("SELECT tableoid::regclass FROM deliveries") == '"deliveries_SP_2026_03"'


def test_partitions_of_the_coming_months_are_made_ahead(cluster: Postgres) -> None:
    now = datetime.now(UTC)
    for months in range(4):
        month = now.year * 12 + now.month - 1 + months
        name = f"exams_RJ_{month // 12}_{month % 12 + 1:02}"
        assert cluster.sql(f"""SELECT to_regclass('"{name}"') IS NOT NULL""") == "t"


def test_every_field_arrives(centre: Postgres) -> None:
    archive(centre).store([record()], batch=1)
    assert centre.sql(
        "SELECT node, institution_id, chronological_age_months, sex, outcome, reason, "
        "bone_age_months, sd_months, z_score, model_name, model_version, object_kinds, "
        "screen_seconds, infer_seconds, report_seconds, reported_at - received_at FROM exam_facts"
    ) == (
        "sp-1|hospital-a|120|F|assessed||126.5|7.25|0.5|boneage-test|1.0.0|"
        "{measurements,narrative}|0.1|0.5|0.2|00:00:00.8"
    )
    assert centre.sql("SELECT destination, outcome, total_seconds FROM delivery_facts") == (
        "pacs|delivered|1.000000"
    )


def test_storing_again_changes_nothing_and_a_change_replaces(centre: Postgres) -> None:
    mine = archive(centre)
    mine.store([record(1), record(2)], batch=1)
    mine.store([record(1), record(2)], batch=1)
    assert centre.sql("SELECT count(*), count(distinct exam_pseudonym) FROM exams") == "2|2"
    [way] = record().deliveries
    parked = replace(way, outcome=DeliveryOutcome.PARKED, delivered_at=None)
    mine.store([record(1, deliveries=(parked,))], batch=2)
    assert centre.sql("SELECT outcome FROM deliveries ORDER BY received_at").split() == [
        "parked",
        "delivered",
    ]
    assert mine.last_batch() == 2


def test_a_batch_is_stored_whole_or_not_at_all(centre: Postgres) -> None:
    wrong = record(2, chronological_age_months=-1)
    with pytest.raises(Permanent) as caught:
        archive(centre).store([record(1), wrong], batch=1)
    assert caught.value.fault is Fault.RECORD_REFUSED
    assert "120" not in str(caught.value)
    assert centre.sql("SELECT count(*) FROM exams") == "0"
    assert archive(centre).last_batch() == 0


@pytest.mark.parametrize(
    "differs",
    [
        {"exam_pseudonym": "12345"},
        {"patient_pseudonym": "Maria da Silva"},
        {"outcome": Outcome.ASSESSED, "result": None},
        {"outcome": Outcome.PENDING, "result": None},
        {"outcome": Outcome.NOT_ASSESSED, "result": None, "reason": None},
        {"reason": "João"},
        {"institution_id": "Hospital São Paulo"},
        {"key_id": "?"},
    ],
)
def test_the_database_takes_no_other_values(centre: Postgres, differs: dict[str, Any]) -> None:
    with pytest.raises(Permanent) as caught:
        archive(centre).store([record(**differs)], batch=1)
    assert caught.value.fault is Fault.RECORD_REFUSED


def test_a_centre_that_is_away_is_unavailable() -> None:
    away = PostgresArchive(f"postgresql://node_sp@127.0.0.1:{free_port()}/bone_age")
    for step in (away.last_batch, lambda: away.store([record()], batch=1)):
        with pytest.raises(Transient) as caught:
            step()
        assert caught.value.fault is Fault.CENTRAL_UNAVAILABLE
        assert "Connection refused" in str(caught.value)


def test_a_centre_that_is_read_only_is_unavailable(centre: Postgres) -> None:
    centre.sql("ALTER DATABASE bone_age SET default_transaction_read_only = on")
    try:
        with pytest.raises(Transient) as caught:
            archive(centre).store([record()], batch=1)
        assert caught.value.fault is Fault.CENTRAL_UNAVAILABLE
    finally:
        centre.sql(
            "ALTER DATABASE bone_age RESET default_transaction_read_only", database="postgres"
        )


@pytest.mark.parametrize("year", [1999, 2126])
def test_a_clock_that_is_wrong_makes_no_partition(centre: Postgres, year: int) -> None:
    wrong = record(1, received_at=datetime(year, 1, 1, tzinfo=UTC))
    with pytest.raises(Permanent) as caught:
        archive(centre).store([wrong], batch=1)
    assert caught.value.fault is Fault.RECORD_REFUSED


def test_an_exam_that_came_again_after_a_loss_stands_once(centre: Postgres) -> None:
    mine = archive(centre)
    mine.store([record(1), record(2)], batch=1)
    later = replace(record(1), received_at=RECEIVED_AT + timedelta(days=3))
    later = replace(later, times=replace(later.times, reported_at=None))
    mine.store([later], batch=2)
    assert centre.sql("SELECT count(*), max(received_at)::date FROM exams") == "2|2026-04-03"
    assert centre.sql("SELECT count(*) FROM deliveries") == "2"


def test_eight_nodes_at_once_all_arrive(centre: Postgres) -> None:
    failures: list[Exception] = []

    def work(worker: int) -> None:
        role, region, node = ("node_sp", "SP", "sp-1") if worker % 2 else ("node_rj", "RJ", "rj-1")
        mine = archive(centre, role)
        try:
            for number in range(10):
                unique = worker * 1000 + number * 60 * 24 * 3
                mine.store([record(unique, region=region, node=node)], batch=number)
        except Exception as error:  # noqa: BLE001 shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert centre.sql("SELECT region, count(*) FROM exams GROUP BY 1 ORDER BY 1") == (
        "RJ|40\nSP|40"
    )


def test_a_heartbeat_says_when_the_node_was_seen(centre: Postgres) -> None:
    at = datetime.now(UTC)
    beat = Heartbeat(
        region="SP", node="sp-1", version="0.1.0", at=at, ready=True, queued=3, parked=1
    )
    archive(centre).beat(beat)
    archive(centre).beat(beat)
    assert centre.sql("SELECT node, ready, queued, parked FROM heartbeat_facts") == "sp-1|t|3|1"
    assert centre.sql("SELECT version FROM node_facts WHERE node = 'sp-1'") == "0.1.0"
