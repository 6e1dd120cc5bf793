"""The ledger's database: its schema, its constraints, its durability and how it fails."""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError, StatementError

import dicom_node.adapters.ledger
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger, database
from dicom_node.adapters.ledger import migrate as migrations
from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.migrate import current_revision, head_revision, migrate
from dicom_node.adapters.ledger.schema import metadata
from dicom_node.domain.assessment import Note
from dicom_node.domain.delivery import ReportKind, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import JobState, Stage
from tests.builders.exams import WAY, answer, claim_one, complete, exam_before, instance, prediction
from tests.fakes.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    sql_ledger = SqlLedger(path, ManualClock())
    yield sql_ledger
    sql_ledger.close()


def definitions(path: Path) -> dict[str, str]:
    """Name to SQL of every table and index, white space apart."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL "
            "AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        ).fetchall()
    return {name: re.sub(r"\s+", " ", sql).strip() for name, sql in found}


def test_a_migrated_schema_equals_a_fresh_one(path: Path, tmp_path: Path) -> None:
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.sqlite'}")
    metadata.create_all(fresh)
    fresh.dispose()
    assert definitions(path) == definitions(tmp_path / "fresh.sqlite")
    assert len(definitions(path)) >= len(metadata.tables)


def test_alembic_finds_no_difference_between_the_migrated_schema_and_the_code(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_migration_needs_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    ledger_path = tmp_path / "data with 100 %" / "ledger.sqlite"
    assert migrate(ledger_path) == head_revision() == current_revision(ledger_path)
    assert list(empty.iterdir()) == []


def test_every_folder_of_the_ledger_is_packaged() -> None:
    root = Path(dicom_node.adapters.ledger.__file__).parent
    project = root.parents[2] / "pyproject.toml"
    packages = tomllib.loads(project.read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(root.parents[2]) for file in root.rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(packages)
    assert len(folders) == 3


def test_migrating_again_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    migrate(path)
    assert path.read_bytes() == before


def test_a_file_without_ledger_has_no_revision(tmp_path: Path) -> None:
    assert current_revision(tmp_path / "ledger.sqlite") is None
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Permanent, match="newer version") as caught:
        migrate(path)
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
    assert current_revision(path) == "9999"


def test_a_migration_that_fails_half_way_leaves_no_table(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE reports (in_the_way)")
    with pytest.raises(Transient):
        migrate(path)
    assert list(definitions(path)) == ["reports"]
    assert current_revision(path) is None


OLD_REPORT = """
    INSERT INTO reports VALUES
        (1, 1, 'measurements', '1.2.88', '2.25.1', '2.25.9', x'01'),
        (2, 1, 'narrative', '1.2.22', '2.25.2', '2.25.8', x'02');
    INSERT INTO deliveries VALUES ('2.25.1', 'pacs', 0, 'stored', 5.0);
"""
"""A report of version 0002, half of it delivered."""

OLD_EXAM = """
    INSERT INTO instances VALUES
        (1, '1.2', '1.2.3', '1.2.840.10008.1.2.1', '{sha}', 1, 'CR', '::1', 'local', 1.0);
    INSERT INTO exams (exam_id, instance_id, outcome, sex, laterality, notes)
        VALUES (1, 1, 'assessed', 'F', 'R', '["right_hand"]');
    INSERT INTO predictions VALUES (1, 126.5, 7.0, 1.0, 2.0, 30.0, 40.0, 'm', '1.1.0', '{sha}');
    INSERT INTO jobs VALUES
        (1, 1, 'screen', '', 'parked', 1, 0, 1.0, 1.0, NULL, NULL, 'laterality_both', 'read it'),
        (2, 1, 'infer', '', 'discarded', 1, 0, 1.0, 1.0, NULL, NULL, 'laterality_both', 'not ours'),
        (3, 1, 'report', '', 'parked', 1, 0, 1.0, 1.0, NULL, NULL, 'report_invalid', 'a defect');
"""
"""What version 0001 wrote: a prediction, and jobs that both hands in one image had parked."""


def test_a_ledger_of_the_first_revision_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    assert current_revision(path) == "0001"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_EXAM.format(sha="ab" * 32) + OLD_REPORT)

    assert migrate(path) == head_revision()
    operator = OperatorLedger(path, ManualClock())
    details = operator.exam_details(1)
    operator.close()
    assert details.prediction is not None
    assert details.prediction.bone_age_months == 126.5
    assert (details.prediction.findings, details.prediction.saliency) == ((), None)
    assert details.notes == (Note.RIGHT_HAND,)
    assert [(job.state, job.fault, job.detail) for job in details.jobs] == [
        (
            JobState.PARKED,
            Fault.OPERATOR,
            "both hands in one image: retry the job to have the left one assessed",
        ),
        (JobState.DISCARDED, Fault.OPERATOR, "not ours"),
        (JobState.PARKED, Fault.REPORT_INVALID, "a defect"),
    ]
    assert [(r.revision, r.kind, r.sop_instance_uid) for r in details.reports] == [
        (1, ReportKind.MEASUREMENTS, "2.25.1"),
        (1, ReportKind.NARRATIVE, "2.25.2"),
    ]
    [delivery] = details.deliveries
    assert (delivery.sent_sop_class_uid, delivery.sent_sop_instance_uid) == ("1.2.88", "2.25.1")
    assert (delivery.verdict, delivery.status) == (Verdict.STORED, 0)


def test_a_missing_saliency_is_null_and_not_a_json_null(path: Path, ledger: SqlLedger) -> None:
    exam_before(ledger, Stage.INFER)
    without = replace(prediction(), findings=(), saliency=None)
    ledger.complete_infer(claim_one(ledger, Stage.INFER), without)
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT findings, saliency FROM predictions").fetchone()
    assert stored == ("[]", None)


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ledger.sqlite"
    program = (
        "import sys; from pathlib import Path\n"
        "from dicom_node.adapters.ledger.migrate import migrate\n"
        "sys.stdin.readline(); print(migrate(Path(sys.argv[1])))"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [starter.communicate("go\n")[0] for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 4
    assert outputs == [f"{head_revision()}\n"] * 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_only_the_owner_can_read_the_ledger(path: Path, ledger: SqlLedger) -> None:
    ledger.record_instance(instance())
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == [f"ledger.sqlite{end}" for end in ("", "-shm", "-wal", ".lock")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


JOB = "INSERT INTO jobs (exam_id, stage, destination, state, attempt, crashes, created_at, " \
    "run_after, owner, lease_expires_at, fault, detail) VALUES "  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        JOB + "(1, 'screen', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'screen', '', 'parked', 0, 0, 1, 1, NULL, NULL, 'operator', '')",
        JOB + "(1, 'infer', '', 'waiting', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'guess', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'infer', 'pacs', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'deliver', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'infer', '', 'leased', 1, 0, 1, 1, NULL, 5, NULL, '')",
        JOB + "(1, 'infer', '', 'leased', 1, 0, 1, 1, 'worker', NULL, NULL, '')",
        JOB + "(1, 'infer', '', 'queued', 1, 0, 1, 1, 'worker', NULL, NULL, '')",
        JOB + "(1, 'infer', '', 'parked', 1, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(1, 'infer', '', 'queued', -1, 0, 1, 1, NULL, NULL, NULL, '')",
        JOB + "(99, 'infer', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
        "UPDATE exams SET outcome = 'lost'",
        "UPDATE exams SET outcome = 'not_assessed'",
        "UPDATE exams SET reason = 'sex_missing'",
        "UPDATE exams SET laterality = 'X'",
        "UPDATE instances SET content_sha256 = 'abc'",
        "INSERT INTO exams (instance_id, outcome) VALUES (1, 'pending')",
        "INSERT INTO deliveries VALUES ('1', 'pacs', 0, 'stored', '1', '1', 1, NULL, NULL, 0)",
        "INSERT INTO journal (exam_id, at, event, detail) VALUES (99, 1, 'received', '')",
        "DELETE FROM instances",
    ],
)
def test_the_database_itself_refuses_what_must_never_be(
    path: Path, ledger: SqlLedger, statement: str
) -> None:
    ledger.record_instance(instance())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)


def test_the_valid_twin_of_the_refused_rows_is_accepted(path: Path, ledger: SqlLedger) -> None:
    ledger.record_instance(instance())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for values in (
            "(1, 'infer', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
            "(1, 'deliver', 'pacs', 'leased', 1, 0, 1, 1, 'worker', 5, NULL, '')",
            "(1, 'report', '', 'parked', 1, 0, 1, 1, NULL, NULL, 'operator', '')",
            "(1, 'screen', '', 'done', 1, 0, 1, 1, NULL, NULL, NULL, '')",
        ):
            connection.execute(JOB + values)


def test_a_transaction_is_synced_unless_a_power_cut_may_undo_it(path: Path) -> None:
    opened = Database(path)
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
    path: Path, ledger: SqlLedger, statements: list[tuple[str, tuple[object, ...]]]
) -> None:
    exam_before(ledger, Stage.DELIVER)
    statements.clear()
    for destination in (None, "pacs"):
        ledger.claim(list(Stage), owner="w", lease_seconds=1, limit=16, destination=destination)
    ledger.expire_leases("w")
    queries = [seen for seen in statements if seen[0].startswith(("SELECT", "UPDATE"))]
    assert len(queries) >= 11
    plans = [step for query in queries for step in query_plan(path, *query)]
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
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    ledger = SqlLedger(path, ManualClock())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
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


def test_a_damaged_page_is_a_transient_error(path: Path) -> None:
    first = SqlLedger(path, ManualClock())
    for number in range(60):
        first.record_instance(instance(number))
    first.close()
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * (size - 4096))
    second = SqlLedger(path, ManualClock())
    with pytest.raises(Transient) as caught:
        second.record_instance(instance(1000))
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
    second.close()


def test_a_missing_folder_is_a_transient_error(path: Path, ledger: SqlLedger) -> None:
    ledger.close()
    shutil.rmtree(path.parent)
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


def test_a_full_disk_is_a_transient_error_and_keeps_what_was_committed(path: Path) -> None:
    filler = subprocess.run(
        [sys.executable, "-c", FILLER, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    *committed, fault = filler.stdout.split()
    assert fault == Fault.STORAGE_UNAVAILABLE, filler.stderr
    assert len(committed) >= 10
    ledger = SqlLedger(path, ManualClock())
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
