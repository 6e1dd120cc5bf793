"""Who may do what at the centre, on a real PostgreSQL: roles, row-level security, connections."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.migrate import migrate
from dicom_node.domain.errors import Fault, Permanent, Transient
from tests.builders.certificates import Authority
from tests.builders.records import record
from tests.integration.peers import wait_until
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
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


def test_only_the_owner_may_migrate(cluster: Postgres) -> None:
    with pytest.raises(Permanent) as caught:
        migrate(cluster.url("nobody"))
    assert caught.value.fault is Fault.CENTRAL_REFUSED


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


def test_an_open_schema_is_refused(cluster: Postgres) -> None:
    cluster.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        with pytest.raises(Permanent, match="REVOKE CREATE"):
            migrate(cluster.url())
    finally:
        cluster.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


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
