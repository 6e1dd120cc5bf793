"""A centre whose disk is full, for tables or for its log: a node keeps its exams, says what is the
matter, and goes on by itself when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.record import ExamRecord
from tests.builders.forwarding import delivered_exam, forward_of
from tests.builders.records import record
from tests.fakes.clock import ManualClock
from tests.integration.peers import wait_until
from tests.peers.postgres import needs_postgres, running_centre

pytestmark = needs_postgres

EXAMS = 60
"""More than what is left of the last pages takes."""


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system in memory that belongs to PostgreSQL."""
    path = Path(tempfile.mkdtemp(prefix="bone-age-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        path.rmdir()
        pytest.skip("a small file system needs root and the right to mount")
    path.chmod(0o700)
    shutil.chown(path, "postgres", "postgres")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
        path.rmdir()


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    with ballast.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, room.f_bavail * room.f_frsize)
    return ballast


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    migrate(tmp_path / "ledger.sqlite")
    opened = SqlLedger(tmp_path / "ledger.sqlite", ManualClock())
    yield opened
    opened.close()


def batch(number: int) -> list[ExamRecord]:
    return [record(of_all) for of_all in range(number * 200, (number + 1) * 200)]


def store_until_refused(mine: PostgresArchive, first: int) -> tuple[int, Transient]:
    """The number of the batch that was refused, and why."""
    for number in range(first, 500):
        try:
            mine.store(batch(number), batch=1)
        except Transient as error:
            return number, error
    pytest.fail("the disk was never full")


def test_tables_that_cannot_grow_take_nothing_and_then_all(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    with small_disk(64) as disk, running_centre(tmp_path / "centre") as centre:
        mine = PostgresArchive(centre.url("node_sp"))
        outbox, forward = forward_of(tmp_path, ManualClock(), mine)
        for statement in (
            f"CREATE TABLESPACE small LOCATION '{disk}'",
            "ALTER DATABASE bone_age SET TABLESPACE small",
        ):
            centre.sql(statement, role="postgres", database="postgres")
        for number in range(1, EXAMS + 1):
            delivered_exam(ledger, number)
        mine.store(batch(0), batch=1)
        ballast = fill(disk)
        stored, why = store_until_refused(mine, 1)
        assert "no room on its disk" in str(why)
        assert why.fault is Fault.CENTRAL_FULL
        with pytest.raises(Transient, match="no room on its disk"):
            forward()
        assert (outbox.backlog().waiting, outbox.backlog().refused) == (EXAMS, 0)
        assert centre.sql("SELECT count(*) FROM exams") == str(200 * stored)
        ballast.unlink()
        assert forward() == EXAMS
        assert outbox.backlog().waiting == 0
        assert centre.sql("SELECT count(*) FROM exams") == str(200 * stored + EXAMS)
        outbox.close()


def test_a_log_that_cannot_grow_ends_the_centre_and_loses_nothing(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    """PostgreSQL ends itself where its write-ahead log has no room, and is started by its owner."""
    with small_disk(128) as disk, running_centre(tmp_path / "centre") as centre:
        mine = PostgresArchive(centre.url("node_sp"))
        outbox, forward = forward_of(tmp_path, ManualClock(), mine)
        log = centre.folder / "pg_wal"
        centre.stop()
        shutil.copytree(log, disk / "pg_wal")
        subprocess.run(["chown", "-R", "postgres:postgres", str(disk)], check=True)
        shutil.rmtree(log)
        log.symlink_to(disk / "pg_wal")
        centre.start()
        ballast = fill(disk)
        stored, why = store_until_refused(mine, 0)
        assert why.fault is Fault.CENTRAL_UNAVAILABLE
        delivered_exam(ledger)
        with pytest.raises(Transient):
            forward()
        assert outbox.backlog().waiting == 1
        wait_until(lambda: not (centre.folder / "postmaster.pid").exists())
        assert "No space left on device" in (centre.folder / "log").read_text()
        ballast.unlink()
        centre.start()
        assert forward() == 1
        mine.store(batch(stored), batch=1)  # it may be there, without the answer
        assert centre.sql("SELECT count(*) FROM exams") == str(200 * (stored + 1) + 1)
        outbox.close()
