"""The centre as `deploy/central` describes it: a primary and a replica on the files that it ships,
TLS and passwords throughout."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.migrate import migrate
from dicom_node.adapters.central.reports import CentralReports, Scope
from dicom_node.domain.errors import Permanent, Transient
from tests.builders.certificates import Authority
from tests.builders.records import record
from tests.integration.peers import wait_until
from tests.peers.postgres import Postgres, needs_postgres, running_cluster, running_standby

pytestmark = needs_postgres

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "central"
PASSWORDS = {
    "owner": "o w'ner",
    "replicator": "re$plicator",
    "node_sp_1": "node",
    "analyst": "analyst",
}


@dataclass(frozen=True)
class Centre:
    """A centre with its authority and the passwords of its roles."""

    primary: Postgres
    ca: Path
    password_file: Path

    def url(self, role: str, at: Postgres | None = None) -> str:
        """The address as a role's configuration has it; the primary's unless another is named."""
        secure = f"sslmode=verify-full&sslrootcert={self.ca}"
        port = (at or self.primary).port
        return f"postgresql://{role}@127.0.0.1:{port}/bone_age?{secure}"

    def url_of_both(self, role: str, replica: Postgres) -> str:
        """The address that goes on with whichever may be written."""
        hosts = f"host=127.0.0.1:{self.primary.port}&host=127.0.0.1:{replica.port}"
        url = self.url(role).replace(f"127.0.0.1:{self.primary.port}", "")
        return f"{url}&{hosts}&target_session_attrs=read-write"

    def archive(self, url: str) -> PostgresArchive:
        """A node's way in."""
        return PostgresArchive(url, password_file=self.password_file)


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    folder = tmp_path_factory.mktemp("centre")
    authority = Authority(folder / "authority")
    with running_cluster(folder / "primary") as primary:
        primary.stop()
        configure(primary, authority)
        primary.start()
        environment = {f"{name.upper()}_PASSWORD": word for name, word in PASSWORDS.items()}
        primary.script((SHIPPED / "roles.sql").read_text(encoding="utf-8"), **environment)
        running = Centre(primary, authority.ca, password_file(folder / "pgpass"))
        migrate(running.url("owner"), password_file=running.password_file)
        as_owner(running, f"CREATE ROLE node_sp_1 LOGIN PASSWORD '{PASSWORDS['node_sp_1']}'")
        as_owner(running, "SELECT admit_node('node_sp_1', 'SP', 'sp-1')")
        as_owner(
            running,
            f"CREATE ROLE analyst LOGIN PASSWORD '{PASSWORDS['analyst']}'"
            " IN ROLE bone_age_reporting",
        )
        yield running


def configure(cluster: Postgres, authority: Authority) -> None:
    """What an administrator does, but for the addresses of loopback and the user of the socket."""
    with (cluster.folder / "postgresql.conf").open("a") as settings:
        settings.write((SHIPPED / "postgresql.conf").read_text(encoding="utf-8"))
        settings.write("listen_addresses = '127.0.0.1'\n")
    access = (SHIPPED / "pg_hba.conf").read_text(encoding="utf-8")
    access = re.sub(r"10\.\d+\.0\.0/\d+", "127.0.0.1/32", access).replace("peer", "trust")
    (cluster.folder / "pg_hba.conf").write_text(access)
    mine = authority.sign("centre.example.org")
    for source, name in ((mine.certificate, "server.crt"), (mine.key, "server.key")):
        target = cluster.folder / name
        shutil.copyfile(source, target)
        target.chmod(0o600)
        owner = cluster.folder.stat()
        shutil.chown(target, owner.st_uid, owner.st_gid)


def password_file(path: Path) -> Path:
    """Everybody's passwords, as libpq reads them; a real one has one line."""
    lines = [f"*:*:*:{role}:{word}\n" for role, word in PASSWORDS.items()]
    path.write_text("".join(lines))
    path.chmod(0o600)
    return path


def as_owner(centre: Centre, statement: str) -> None:
    """By psql, over TLS with the password."""
    subprocess.run(
        ["/usr/bin/psql", centre.url("owner"), "-v", "ON_ERROR_STOP=1", "-qc", statement],
        env={"PGPASSFILE": str(centre.password_file)}, check=True, timeout=60,
    )  # fmt: skip


@contextmanager
def replica_of(centre: Centre, folder: Path) -> Iterator[Postgres]:
    """By pg_basebackup as in the README; the replicator's password stands where libpq takes it."""
    connection = (
        f"user=replicator password={PASSWORDS['replicator']} sslmode=verify-full "
        f"sslrootcert={centre.primary.folder / 'ca.pem'}"
    )
    shutil.copyfile(centre.ca, centre.primary.folder / "ca.pem")
    options = ("-X", "stream", "-S", "replica_1")
    with running_standby(centre.primary, folder, *options, connection=connection) as replica:
        yield replica


def test_a_node_needs_tls_and_its_password(centre: Centre, tmp_path: Path) -> None:
    assert centre.archive(centre.url("node_sp_1")).last_batch() == 0
    with pytest.raises(Transient, match="no encryption"):
        centre.archive(centre.url("node_sp_1").replace("verify-full", "disable")).last_batch()
    wrong = tmp_path / "pgpass"
    wrong.write_text("*:*:*:node_sp_1:guessed\n")
    wrong.chmod(0o600)
    with pytest.raises(Transient, match="password authentication failed"):
        PostgresArchive(centre.url("node_sp_1"), password_file=wrong).last_batch()


@pytest.mark.parametrize(
    ("role", "database"), [("node_sp_1", "postgres"), ("postgres", "bone_age")]
)
def test_nobody_else_gets_in(centre: Centre, role: str, database: str) -> None:
    url = centre.url(role).replace("/bone_age?", f"/{database}?")
    with pytest.raises(Transient, match=r"no pg_hba\.conf entry"):
        centre.archive(url).last_batch()


def test_the_replica_answers_reports_and_takes_over(centre: Centre, tmp_path: Path) -> None:
    scope = Scope(since=date(2020, 1, 1), until=date(2100, 1, 1))
    with replica_of(centre, tmp_path / "replica") as replica:
        centre.archive(centre.url("node_sp_1")).store([record(1)], batch=1)
        reports = CentralReports(centre.url("analyst", replica), password_file=centre.password_file)
        wait_until(lambda: len(reports.read("usage", scope)[0].rows) == 1)
        with pytest.raises((Transient, Permanent)):
            centre.archive(centre.url("node_sp_1", replica)).store([record(2)], batch=2)
        centre.primary.script(
            "SELECT 1 / count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl;"
        )

        either = centre.url_of_both("node_sp_1", replica)
        centre.primary.stop("immediate")
        try:
            with pytest.raises(Transient):
                centre.archive(either).last_batch()
            replica.script("SELECT pg_promote();")
            centre.archive(either).store([record(2)], batch=2)
            assert centre.archive(either).last_batch() == 2
        finally:
            centre.primary.start()
