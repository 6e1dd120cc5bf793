"""The centre on a real PostgreSQL: its schema, who may do what, and what a node tells it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.migrate import head_revision, migrate
from dicom_node.adapters.central.schema import metadata
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Outcome
from dicom_node.domain.record import DeliveryOutcome, Heartbeat
from tests.builders.certificates import Authority
from tests.builders.records import RECEIVED_AT, record
from tests.integration.peers import free_port, wait_until
from tests.peers.postgres import Postgres, needs_postgres, running_postgres

pytestmark = needs_postgres

NODES = {"node_sp": ("SP", "sp-1"), "node_sp2": ("SP", "sp-2"), "node_rj": ("RJ", "rj-1")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("centre")) as running:
        migrate(running.url())
        for role, (region, node) in NODES.items():
            running.sql(f"CREATE ROLE {role} LOGIN")
            running.sql(f"SELECT admit_node('{role}', '{region}', '{node}')")
        running.sql("CREATE ROLE analyst LOGIN IN ROLE bone_age_reporting")
        running.sql("CREATE ROLE nobody LOGIN")
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


def test_a_centre_of_the_first_revision_keeps_its_exams(centre: Postgres) -> None:
    archive(centre).store([record()], batch=1)
    for report in ("usage", "quality", "latency", "availability", "cost"):
        centre.sql(f"DROP VIEW report_{report}; DROP FUNCTION {report}_between(date, date)")
    centre.sql("DROP TABLE prices, contracts; UPDATE alembic_version SET version_num = 'c0001'")
    assert migrate(centre.url()) == head_revision()
    assert centre.sql("SELECT exams FROM report_usage", role="analyst") == "1"


def test_a_newer_centre_is_refused(cluster: Postgres) -> None:
    cluster.sql("UPDATE alembic_version SET version_num = 'c9999'")
    try:
        with pytest.raises(Permanent, match="newer version"):
            migrate(cluster.url())
    finally:
        cluster.sql(f"UPDATE alembic_version SET version_num = '{head_revision()}'")


def test_only_the_owner_may_migrate(cluster: Postgres) -> None:
    with pytest.raises(Permanent) as caught:
        migrate(cluster.url("nobody"))
    assert caught.value.fault is Fault.CENTRAL_REFUSED


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


def test_a_node_writes_and_reads_its_own_region_only(centre: Postgres) -> None:
    archive(centre, "node_sp").store([record(1)], batch=1)
    archive(centre, "node_rj").store([record(2, region="RJ", node="rj-1")], batch=1)
    foreigners: tuple[dict[str, str], ...] = ({"region": "RJ", "node": "rj-1"}, {"node": "sp-2"})
    for foreign in foreigners:
        with pytest.raises(Permanent) as caught:
            archive(centre, "node_sp").store([record(3, **foreign)], batch=2)
        assert caught.value.fault is Fault.CENTRAL_REFUSED
    assert centre.sql("SELECT region FROM exams", role="node_sp") == "SP"
    assert centre.sql("SELECT region FROM exams", role="node_rj") == "RJ"
    assert centre.sql("SELECT region FROM exams", role="node_sp2") == "SP"
    assert centre.sql("SELECT count(*) FROM exams") == "2"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM exams",
        "TRUNCATE exams",
        "DROP TABLE exams",
        'SELECT * FROM "exams_RJ_2026_03"',
        "INSERT INTO nodes (role_name, region, node) VALUES ('node_sp', 'RJ', 'x')",
        "UPDATE nodes SET region = 'RJ'",
        "SELECT admit_node('node_sp', 'RJ', 'x')",
        "SELECT make_partition('RJ', now())",
        "UPDATE institutions SET institution_id = 'x'",
        "UPDATE models SET model_name = 'x'",
        "SELECT * FROM exam_facts",
        "SET ROLE owner",
    ],
)
def test_a_node_may_do_nothing_else(centre: Postgres, statement: str) -> None:
    archive(centre, "node_rj").store([record(2, region="RJ", node="rj-1")], batch=1)
    with pytest.raises(AssertionError, match=r"permission denied|must be owner|does not exist"):
        centre.sql(statement, role="node_sp")


def test_the_reporting_role_reads_views_without_pseudonyms(centre: Postgres) -> None:
    archive(centre).store([record()], batch=1)
    views = ("exam_facts", "delivery_facts", "node_facts", "heartbeat_facts")
    for view in views:
        centre.sql(f"SELECT * FROM {view}", role="analyst")
    assert centre.sql("SELECT bone_age_months FROM exam_facts", role="analyst") == "126.5"
    columns = centre.sql(
        f"SELECT DISTINCT column_name FROM information_schema.columns WHERE table_name IN {views}"
    )
    assert not {name for name in columns.split() if "pseudonym" in name or "key" in name}
    for table in ("exams", "deliveries", "nodes", "institutions"):
        with pytest.raises(AssertionError, match="permission denied"):
            centre.sql(f"SELECT * FROM {table}", role="analyst")


def test_a_role_that_was_not_admitted_is_refused_with_what_to_do(centre: Postgres) -> None:
    centre.sql("CREATE ROLE stray LOGIN IN ROLE bone_age_node")
    try:
        with pytest.raises(Permanent, match="admit_node") as caught:
            archive(centre, "stray").last_batch()
        assert caught.value.fault is Fault.CENTRAL_REFUSED
        with pytest.raises(Permanent) as caught:
            archive(centre, "nobody").last_batch()
        assert caught.value.fault is Fault.CENTRAL_REFUSED
    finally:
        centre.sql("DROP ROLE stray")


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


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE exams SET node = 'sp-2', chronological_age_months = 1",
        "UPDATE exams SET chronological_age_months = 1",
        "UPDATE deliveries SET outcome = 'parked', delivered_at = NULL",
        "UPDATE deliveries SET node = 'sp-2'",
        "SELECT forget_twins(ARRAY['{name}'], ARRAY[now()])",
    ],
)
def test_a_node_changes_nothing_of_another_of_its_region(centre: Postgres, statement: str) -> None:
    archive(centre, "node_sp").store([record(1)], batch=1)
    rows = "SELECT * FROM exams, deliveries"
    before = centre.sql(rows)
    centre.sql(statement.format(name=record(1).exam_pseudonym), role="node_sp2")
    assert centre.sql(rows) == before


def test_an_exam_that_came_again_after_a_loss_stands_once(centre: Postgres) -> None:
    mine = archive(centre)
    mine.store([record(1), record(2)], batch=1)
    later = replace(record(1), received_at=RECEIVED_AT + timedelta(days=3))
    later = replace(later, times=replace(later.times, reported_at=None))
    mine.store([later], batch=2)
    assert centre.sql("SELECT count(*), max(received_at)::date FROM exams") == "2|2026-04-03"
    assert centre.sql("SELECT count(*) FROM deliveries") == "2"


def test_an_open_schema_is_refused(cluster: Postgres) -> None:
    cluster.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        with pytest.raises(Permanent, match="REVOKE CREATE"):
            migrate(cluster.url())
    finally:
        cluster.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


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


def test_a_month_is_detached_whole(centre: Postgres) -> None:
    archive(centre).store([record()], batch=1)
    for table in ("deliveries", "exams"):
        centre.sql(f'ALTER TABLE "{table}_SP" DETACH PARTITION "{table}_SP_2026_03"')
    assert centre.sql("SELECT count(*) FROM exams") == "0"
    assert centre.sql('SELECT count(*) FROM "exams_SP_2026_03"') == "1"
    for table in ("deliveries", "exams"):
        centre.sql(f'DROP TABLE "{table}_SP_2026_03"')


def test_a_heartbeat_says_when_the_node_was_seen(centre: Postgres) -> None:
    at = datetime.now(UTC)
    beat = Heartbeat(
        region="SP", node="sp-1", version="0.1.0", at=at, ready=True, queued=3, parked=1
    )
    archive(centre).beat(beat)
    archive(centre).beat(beat)
    assert centre.sql("SELECT node, ready, queued, parked FROM heartbeat_facts") == "sp-1|t|3|1"
    assert centre.sql("SELECT version FROM node_facts WHERE node = 'sp-1'") == "0.1.0"


@pytest.fixture
def secured(centre: Postgres, tmp_path: Path) -> Iterator[Authority]:
    """The cluster with a certificate for 127.0.0.1."""
    authority = Authority(tmp_path / "authority")
    server = authority.sign("centre.example")
    for file, name in ((server.certificate, "server.crt"), (server.key, "server.key")):
        installed = shutil.copy(file, centre.folder / name)
        shutil.chown(installed, *owner_of(centre.folder))
        Path(installed).chmod(0o600)
    centre.sql("ALTER SYSTEM SET ssl = on", role="postgres")
    centre.sql("SELECT pg_reload_conf()", role="postgres")
    wait_until(lambda: centre.sql("SHOW ssl") == "on")
    yield authority
    centre.sql("ALTER SYSTEM RESET ssl", role="postgres")
    centre.sql("SELECT pg_reload_conf()", role="postgres")


def owner_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def test_a_node_trusts_only_the_centre_of_its_authority(
    centre: Postgres, secured: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")

    def through(authority: Authority) -> PostgresArchive:
        secure = f"?sslmode=verify-full&sslrootcert={authority.ca}"
        return PostgresArchive(centre.url("node_sp") + secure)

    assert through(secured).last_batch() == 0
    with pytest.raises(Transient, match="certificate verify failed"):
        through(stranger).last_batch()


def test_a_password_comes_from_a_file(centre: Postgres, tmp_path: Path) -> None:
    access = centre.folder / "pg_hba.conf"
    before = access.read_text()
    centre.sql("ALTER ROLE node_sp PASSWORD 'right'")
    access.write_text(f"host all node_sp 127.0.0.1/32 scram-sha-256\n{before}")
    centre.sql("SELECT pg_reload_conf()", role="postgres")
    password = tmp_path / "pgpass"
    try:
        for content, outcome in (("right", 0), ("wrong", None)):
            password.write_text(f"127.0.0.1:*:bone_age:node_sp:{content}\n")
            password.chmod(0o600)
            mine = PostgresArchive(centre.url("node_sp"), password_file=password)
            if outcome is None:
                with pytest.raises(Transient, match="password authentication failed"):
                    mine.last_batch()
            else:
                assert mine.last_batch() == outcome
    finally:
        access.write_text(before)
        centre.sql("SELECT pg_reload_conf()", role="postgres")
