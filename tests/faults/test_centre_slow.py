"""A centre that is slow, that accepts connections and never answers, or that falls silent within a
transaction: what forwards gives up, says why, and sends all when it answers again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.central import database
from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.record import ExamRecord
from tests.builders.radiographs import radiograph_files
from tests.builders.records import record
from tests.integration.peers import wait_until
from tests.peers.held import held
from tests.peers.line import Line, line_to
from tests.peers.node import running_node, write_config
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres

SECONDS = 2
"""For a transaction of this test's node."""
EXAMS = 6


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Postgres]:
    with running_centre(tmp_path / "centre") as running:
        yield running


@pytest.fixture
def line(centre: Postgres) -> Iterator[Line]:
    with line_to(centre.port) as running:
        yield running


def archive(line: Line) -> PostgresArchive:
    return PostgresArchive(
        f"postgresql://node_sp@127.0.0.1:{line.port}/bone_age?sslmode=disable", seconds=SECONDS
    )


def batch() -> list[ExamRecord]:
    return [record(number) for number in range(200)]


def test_a_centre_that_falls_silent_within_a_batch_is_hung_up_on(
    centre: Postgres, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it does: when it has connected, within the batch, before the answer to COMMIT."""
    monkeypatch.setattr(database, "_GRACE_SECONDS", 1)
    mine, before = archive(line), threading.active_count()
    for size in (1_500, 20_000, 60_000, 100_000):
        line.holds_after = size
        begun = time.monotonic()
        with pytest.raises(Transient, match="too long") as caught:
            mine.store(batch(), batch=1)
        assert caught.value.fault is Fault.CENTRAL_UNAVAILABLE
        assert time.monotonic() - begun >= SECONDS
        line.holds_after = None
        line.goes_through.set()
    assert mine.last_batch() in {0, 1}
    mine.store(batch(), batch=2)  # no lock is left of those that were given up
    assert centre.sql("SELECT count(*), count(DISTINCT exam_pseudonym) FROM exams") == "200|200"
    wait_until(lambda: threading.active_count() <= before + 1)


def test_a_centre_that_never_answers_is_given_up(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_CONNECT_SECONDS", 2)
    line.goes_through.clear()
    with pytest.raises(Transient, match="timeout expired"):
        archive(line).last_batch()


def test_the_centre_forgets_a_node_that_went_away_within_a_transaction(
    centre: Postgres, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks would hold up the node's next try for the hours that TCP takes to notice."""
    monkeypatch.setattr(database, "_GRACE_SECONDS", 1)
    mine = archive(line)
    line.holds_after = 60_000
    with pytest.raises(Transient):
        mine.store(batch(), batch=1)
    within = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'node_sp'"
    wait_until(lambda: centre.sql(within) == "0", seconds=30)  # the line still holds its end open
    PostgresArchive(centre.url("node_sp"), seconds=SECONDS).store(batch(), batch=1)


def test_a_slow_query_says_so(centre: Postgres) -> None:
    centre.sql(
        "CREATE OR REPLACE FUNCTION own_node() RETURNS text LANGUAGE sql SECURITY DEFINER "
        "AS $$ SELECT pg_sleep(10); SELECT 'sp-1' $$"
    )
    with pytest.raises(Transient, match="57014"):
        PostgresArchive(centre.url("node_sp"), seconds=1).last_batch()


def test_exams_and_reports_go_on_while_the_centre_is_slow_or_silent(
    centre: Postgres, line: Line, tmp_path: Path
) -> None:
    write_config(
        tmp_path / "node",
        [],
        node='name = "sp-1"\nregion = "SP"',
        extra=f'[central]\nurl = "postgresql://node_sp@127.0.0.1:{line.port}/bone_age"\n'
        '[inference]\nworkers = 1\ndevice = "cpu"\n',
    )
    files = radiograph_files(tmp_path / "sent", 3 * EXAMS)
    parts = [files[n * EXAMS : (n + 1) * EXAMS] for n in range(3)]
    with running_node(tmp_path / "node") as node:

        def work_through(part: list[Path]) -> float:
            begun = time.monotonic()
            sent = send_files(part, node.peer, calling_ae_title="CR")
            assert all(one.status == 0 for one in sent)
            node.wait_until_idle(120)
            return time.monotonic() - begun

        fast = work_through(parts[0])
        wait_until(lambda: centre.sql("SELECT count(*) FROM exams") == str(EXAMS), seconds=60)
        before = held(node)

        line.goes_through.clear()
        silent = work_through(parts[1])
        wait_until(lambda: "dicom_node_central_silent 1.0" in node.get("/metrics"), seconds=60)
        assert centre.sql("SELECT count(*) FROM exams") == str(EXAMS)
        assert node.log().count('"central_silent"') == 1

        line.delay_seconds = 0.2
        line.goes_through.set()
        slow = work_through(parts[2])
        wait_until(lambda: centre.sql("SELECT count(*) FROM exams") == str(3 * EXAMS), seconds=120)
        wait_until(lambda: "dicom_node_central_silent 0.0" in node.get("/metrics"), seconds=60)
        after = held(node)
    assert max(silent, slow) < 5 * fast
    assert after.threads <= before.threads + 4
    assert after.descriptors <= before.descriptors + 8
    assert after.resident_mb < before.resident_mb + 100
    assert centre.sql("SELECT count(DISTINCT exam_pseudonym) FROM exams") == str(3 * EXAMS)
