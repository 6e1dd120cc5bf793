"""PostgreSQL as the centre: a cluster of its own below a folder, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
from alembic import command
from sqlalchemy import create_engine

from dicom_node.adapters.central.migrate import _config
from tests.integration.peers import free_port

_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
needs_postgres = pytest.mark.skipif(
    _PROGRAMS is None, reason="PostgreSQL is not installed: apt-get install postgresql"
)


class Postgres:
    """A running cluster."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def url(self, role: str = "owner", database: str = "bone_age") -> str:
        """Where a role connects to; the cluster trusts loopback."""
        return f"postgresql+psycopg2://{role}@127.0.0.1:{self.port}/{database}"

    def sql(
        self,
        statement: str,
        *,
        role: str = "owner",
        database: str = "bone_age",
        timeout_seconds: float = 60,
    ) -> str:
        """What psql prints of a statement, without headings; fails on an error."""
        done = subprocess.run(
            ["/usr/bin/psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", role, "-d", database,
             "-v", "ON_ERROR_STOP=1", "-qAtc", statement],
            capture_output=True, text=True, check=False,
            timeout=timeout_seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def script(self, text: str, **environment: str) -> None:
        """Run a script by psql as the superuser, through the socket in its folder."""
        _as_postgres(
            "psql", "-h", self.folder, "-p", self.port, "-U", "postgres", "-v", "ON_ERROR_STOP=1",
            script=text, environment=environment,
        )  # fmt: skip

    def start(self) -> None:
        """Start the cluster and wait until it answers."""
        _as_postgres("pg_ctl", "-D", self.folder, "-w", "-l", self.folder / "log", "start")

    def promote(self) -> None:
        """Make a standby the primary."""
        _as_postgres("pg_ctl", "-D", self.folder, "-w", "promote")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash."""
        _as_postgres("pg_ctl", "-D", self.folder, "-w", "-m", mode, "stop")


@contextmanager
def running_cluster(folder: Path, *, settings: str = "") -> Iterator[Postgres]:
    """A new cluster with its superuser ``postgres`` and nothing else. ``settings``: lines of its
    postgresql.conf."""
    home = _home_for_postgres(folder)
    _as_postgres("initdb", "-D", home, "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8")
    port = free_port()
    with (home / "postgresql.conf").open("a") as configuration:
        configuration.write(
            f"port = {port}\nlisten_addresses = '127.0.0.1'\n"
            f"unix_socket_directories = '{home}'\nwal_level = replica\nfsync = off\n"
            f"{settings}\n"
        )
    cluster = Postgres(home, port)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running_postgres(folder: Path, *, settings: str = "") -> Iterator[Postgres]:
    """A new cluster with the database ``bone_age`` and its ``owner``."""
    with running_cluster(folder, settings=settings) as cluster:
        cluster.sql("CREATE ROLE owner LOGIN CREATEROLE", role="postgres", database="postgres")
        cluster.sql("CREATE DATABASE bone_age OWNER owner", role="postgres", database="postgres")
        cluster.sql("ALTER SCHEMA public OWNER TO owner", role="postgres")
        yield cluster


NODES = {"node_sp": ("SP", "sp-1"), "node_sp2": ("SP", "sp-2"), "node_rj": ("RJ", "rj-1")}
"""Login role of each node that a test's centre admits, to its region and name."""


@contextmanager
def running_centre(folder: Path, *, settings: str = "") -> Iterator[Postgres]:
    """A cluster with the central schema, the roles of :data:`NODES`, and ``analyst``, who reads
    reports."""
    with running_postgres(folder, settings=settings) as running:
        for role in (*NODES, "analyst"):
            running.sql(f"CREATE ROLE {role} LOGIN")
        make_centre(running)
        yield running


def make_centre(running: Postgres, revision: str = "head") -> None:
    """The central schema of a revision, without rows, instead of what there was."""
    running.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    running.sql("GRANT USAGE ON SCHEMA public TO PUBLIC")
    config, owner = _config(), create_engine(running.url())
    with owner.begin() as config.attributes["connection"]:
        command.upgrade(config, revision)
    owner.dispose()
    for role, (region, node) in NODES.items():
        running.sql(f"SELECT admit_node('{role}', '{region}', '{node}')")
    running.sql("GRANT bone_age_reporting TO analyst")


@contextmanager
def running_standby(
    primary: Postgres, folder: Path, *options: str, connection: str = "user=postgres"
) -> Iterator[Postgres]:
    """A streaming replica of a running cluster, which answers reads. ``options``: more of
    pg_basebackup's; ``connection``: libpq's parameters beyond host and port."""
    home = _home_for_postgres(folder)
    source = f"host=127.0.0.1 port={primary.port} {connection}"
    _as_postgres("pg_basebackup", "-d", source, "-D", home, "-R", "-c", "fast", *options)
    port = free_port()
    with (home / "postgresql.conf").open("a") as configuration:
        configuration.write(f"port = {port}\nunix_socket_directories = '{home}'\n")
    standby = Postgres(home, port)
    standby.start()
    try:
        yield standby
    finally:
        standby.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def _home_for_postgres(folder: Path) -> Path:
    """A folder that the user ``postgres`` may use: initdb refuses root."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return folder / "cluster"
    home = Path("/tmp") / f"bone-age-postgres-{os.getpid()}-{free_port()}"
    home.mkdir(mode=0o700)
    shutil.chown(home, "postgres", "postgres")
    return home / "cluster"


def _as_postgres(
    program: str,
    *arguments: object,
    script: str = "",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> None:
    assert _PROGRAMS is not None
    command = [str(_PROGRAMS / program), *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=120, cwd="/", input=script, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
