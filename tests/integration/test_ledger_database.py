"""The ledger's transactions: what is synced, by which indexes, and what becomes of errors."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError, StatementError

from dicom_node.adapters.ledger import SqlLedger, database
from dicom_node.adapters.ledger.database import Database
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.job import Stage
from tests.builders.exams import WAY, answer, claim_one, complete, exam_before, instance
from tests.fakes.clock import ManualClock


def test_a_transaction_is_synced_unless_a_power_cut_may_undo_it(ledger_path: Path) -> None:
    opened = Database(ledger_path)
    settings = {}
    for durable in (True, False, True):
        with opened.write(durable=durable) as connection:
            settings[durable] = tuple(
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("synchronous", "journal_mode", "foreign_keys")
            )
    opened.close()
    assert settings == {True: (2, "wal", 1), False: (1, "wal", 1)}


@pytest.fixture
def statements() -> Iterator[list[tuple[str, tuple[object, ...]]]]:
    """Every statement that SQLAlchemy runs during the test, with its parameters."""
    seen: list[tuple[str, tuple[object, ...]]] = []

    def look(_1: object, _2: object, sql: str, values: tuple[object, ...], *_: object) -> None:
        seen.append((sql, values))

    event.listen(Engine, "before_cursor_execute", look)
    yield seen
    event.remove(Engine, "before_cursor_execute", look)


def test_what_a_stage_only_finds_again_is_not_synced(
    ledger: SqlLedger, statements: list[tuple[str, tuple[object, ...]]]
) -> None:
    def level(run: Callable[..., object], *args: object, **options: object) -> str:
        statements.clear()
        run(*args, **options)
        (pragma,) = [sql for sql, _ in statements if sql.startswith("PRAGMA synchronous")]
        return pragma.rpartition(" ")[2]

    assert level(ledger.record_instance, instance()) == "FULL"
    for stage in WAY:
        assert level(claim_one, ledger, stage, owner=stage) == "NORMAL"
        assert level(ledger.expire_leases, stage) == "FULL"
        job = claim_one(ledger, stage)
        if stage is Stage.DELIVER:
            stored = answer(job.exam_id, "pacs", verdict=Verdict.STORED)
            assert level(ledger.record_delivery, job, stored) == "NORMAL"
        found_again = stage in (Stage.SCREEN, Stage.INFER)
        assert level(complete, ledger, job) == ("NORMAL" if found_again else "FULL")


@pytest.mark.parametrize("report", [True, False])
def test_an_exam_that_ends_is_synced(
    ledger: SqlLedger, statements: list[tuple[str, tuple[object, ...]]], report: bool
) -> None:
    exam_before(ledger, Stage.SCREEN)
    job = claim_one(ledger, Stage.SCREEN)
    statements.clear()
    ledger.complete_not_assessed(job, Reason.NO_HAND_FOUND, study_instance_uid="1.2", report=report)
    assert ("PRAGMA synchronous = FULL", ()) in statements


def test_claiming_uses_indexes_only(
    ledger_path: Path, ledger: SqlLedger, statements: list[tuple[str, tuple[object, ...]]]
) -> None:
    exam_before(ledger, Stage.DELIVER)
    statements.clear()
    for destination in (None, "pacs"):
        ledger.claim(list(Stage), owner="w", lease_seconds=1, limit=16, destination=destination)
    ledger.expire_leases("w")
    queries = [seen for seen in statements if seen[0].startswith(("SELECT", "UPDATE"))]
    assert len(queries) >= 11
    plans = [step for query in queries for step in query_plan(ledger_path, *query)]
    on_jobs = [step for step in plans if " jobs" in step]
    assert [step for step in on_jobs if "INDEX" not in step and "PRIMARY KEY" not in step] == []
    assert [step for step in plans if "TEMP B-TREE" in step] == []
    assert any("jobs_due (stage=? AND run_after<?)" in step for step in plans)
    assert any("jobs_due_there (stage=? AND destination=?" in step for step in plans)
    assert any("jobs_leased" in step for step in plans)


def query_plan(path: Path, sql: str, values: tuple[object, ...]) -> list[str]:
    """What SQLite would do: one line per table, "SCAN ..." or "SEARCH ..."."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def test_another_program_that_holds_the_database_is_a_transient_error(
    ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    ledger = SqlLedger(ledger_path, ManualClock())
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="locked") as caught:
            ledger.record_instance(instance())
        assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
        other.execute("ROLLBACK")
    ledger.record_instance(instance())
    ledger.close()


def test_a_file_that_is_no_database_is_a_transient_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"rubbish " * 1000)
    ledger = SqlLedger(tmp_path / "ledger.sqlite", ManualClock())
    with pytest.raises(Transient, match="not a database"):
        ledger.exam(1)
    ledger.close()


def test_a_damaged_page_is_a_transient_error(ledger_path: Path) -> None:
    first = SqlLedger(ledger_path, ManualClock())
    for number in range(60):
        first.record_instance(instance(number))
    first.close()
    size = ledger_path.stat().st_size
    ledger_path.write_bytes(ledger_path.read_bytes()[:4096] + b"\xa5" * (size - 4096))
    second = SqlLedger(ledger_path, ManualClock())
    with pytest.raises(Transient) as caught:
        second.record_instance(instance(1000))
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
    second.close()


def test_a_missing_folder_is_a_transient_error(ledger_path: Path, ledger: SqlLedger) -> None:
    ledger.close()
    shutil.rmtree(ledger_path.parent)
    with pytest.raises(Transient):
        ledger.record_instance(instance())


FILLER = """
import resource, signal, sys
from pathlib import Path
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.domain.errors import Transient
from tests.builders.exams import instance
from tests.fakes.clock import ManualClock

path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
ledger = SqlLedger(path, ManualClock())
for number in range(10_000):
    try:
        ledger.record_instance(instance(number))
    except Transient as error:
        print(error.fault, flush=True)
        break
    print(number, flush=True)
"""


def test_a_full_disk_is_a_transient_error_and_keeps_what_was_committed(ledger_path: Path) -> None:
    filler = subprocess.run(
        [sys.executable, "-c", FILLER, str(ledger_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    *committed, fault = filler.stdout.split()
    assert fault == Fault.STORAGE_UNAVAILABLE, filler.stderr
    assert len(committed) >= 10
    ledger = SqlLedger(ledger_path, ManualClock())
    for number in committed:
        exam_id, _ = ledger.record_instance(instance(int(number)))
        assert exam_id == int(number) + 1
    ledger.record_instance(instance(10_000))
    ledger.close()


def test_errors_never_show_the_values_of_a_statement(ledger: SqlLedger) -> None:
    exam_before(ledger, Stage.DELIVER)
    job = claim_one(ledger, Stage.DELIVER)
    unknown = replace(answer(1, "pacs", verdict=Verdict.STORED), sop_instance_uid="1.2.3.4.5")
    with pytest.raises(IntegrityError) as caught:
        ledger.record_delivery(job, unknown)
    assert "1.2.3.4.5" not in str(caught.value)


def test_a_naive_time_is_refused(ledger: SqlLedger) -> None:
    naive = replace(instance(), received_at=datetime(2026, 3, 1, 12, 0))
    with pytest.raises(StatementError, match="aware times only"):
        ledger.record_instance(naive)
