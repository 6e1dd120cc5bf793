"""The ledger's schema: its migrations, and what its constraints refuse."""

from __future__ import annotations

import re
import sqlite3
import stat
import subprocess
import sys
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

import dicom_node.adapters.ledger
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger import migrate as migrations
from dicom_node.adapters.ledger.migrate import current_revision, head_revision, migrate
from dicom_node.adapters.ledger.schema import metadata
from dicom_node.domain.assessment import Note
from dicom_node.domain.delivery import ReportKind, Verdict
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import JobState, Stage
from tests.builders.exams import claim_one, exam_before, instance, prediction
from tests.fakes.clock import ManualClock


def definitions(path: Path) -> dict[str, str]:
    """Name to SQL of every table and index, white space apart."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL "
            "AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        ).fetchall()
    return {name: re.sub(r"\s+", " ", sql).strip() for name, sql in found}


def test_a_migrated_schema_equals_a_fresh_one(ledger_path: Path, tmp_path: Path) -> None:
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.sqlite'}")
    metadata.create_all(fresh)
    fresh.dispose()
    assert definitions(ledger_path) == definitions(tmp_path / "fresh.sqlite")
    assert len(definitions(ledger_path)) >= len(metadata.tables)


def test_alembic_finds_no_difference_between_the_migrated_schema_and_the_code(
    ledger_path: Path,
) -> None:
    engine = create_engine(f"sqlite:///{ledger_path}")
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


def test_migrating_again_changes_nothing(ledger_path: Path) -> None:
    before = ledger_path.read_bytes()
    migrate(ledger_path)
    assert ledger_path.read_bytes() == before


def test_a_file_without_ledger_has_no_revision(tmp_path: Path) -> None:
    assert current_revision(tmp_path / "ledger.sqlite") is None
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(ledger_path: Path) -> None:
    with closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Permanent, match="newer version") as caught:
        migrate(ledger_path)
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
    assert current_revision(ledger_path) == "9999"


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


def test_a_missing_saliency_is_null_and_not_a_json_null(
    ledger_path: Path, ledger: SqlLedger
) -> None:
    exam_before(ledger, Stage.INFER)
    without = replace(prediction(), findings=(), saliency=None)
    ledger.complete_infer(claim_one(ledger, Stage.INFER), without)
    with closing(sqlite3.connect(ledger_path)) as connection:
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


def test_only_the_owner_can_read_the_ledger(ledger_path: Path, ledger: SqlLedger) -> None:
    ledger.record_instance(instance())
    files = sorted(file.name for file in ledger_path.parent.iterdir())
    assert files == [f"ledger.sqlite{end}" for end in ("", "-shm", "-wal", ".lock")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in ledger_path.parent.iterdir()} == {0o600}


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
    ledger_path: Path, ledger: SqlLedger, statement: str
) -> None:
    ledger.record_instance(instance())
    with closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)


def test_the_valid_twin_of_the_refused_rows_is_accepted(
    ledger_path: Path, ledger: SqlLedger
) -> None:
    ledger.record_instance(instance())
    with closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for values in (
            "(1, 'infer', '', 'queued', 0, 0, 1, 1, NULL, NULL, NULL, '')",
            "(1, 'deliver', 'pacs', 'leased', 1, 0, 1, 1, 'worker', 5, NULL, '')",
            "(1, 'report', '', 'parked', 1, 0, 1, 1, NULL, NULL, 'operator', '')",
            "(1, 'screen', '', 'done', 1, 0, 1, 1, NULL, NULL, NULL, '')",
        ):
            connection.execute(JOB + values)
