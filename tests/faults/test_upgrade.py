"""The present code on the ledger of an earlier version: what was open there ends as a report, and
an old node that still drains is waited for."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from sqlalchemy import Connection, text

from dicom_node.adapters.ledger.database import Database
from dicom_node.adapters.ledger.migrate import _config, current_revision, head_revision
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.job import JobState, Stage
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import running_storescp, wait_until
from tests.peers.invariants import check_fates, check_rest, check_stopped, stored_in
from tests.peers.node import Node, begin_node, running_node, start_node, write_config

DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
STAGES = (Stage.SCREEN, Stage.INFER, Stage.REPORT, Stage.DELIVER)
CASES = [
    (stage, state)
    for stage in STAGES
    for state in (JobState.QUEUED, JobState.LEASED, JobState.PARKED)
]
"""One exam for each, and one that is delivered."""
OUTPUTS = {
    Stage.DELIVER: "DELETE FROM deliveries WHERE sop_instance_uid IN"
    " (SELECT sop_instance_uid FROM reports WHERE exam_id = :exam)",
    Stage.REPORT: "DELETE FROM reports WHERE exam_id = :exam",
    Stage.INFER: "DELETE FROM predictions WHERE exam_id = :exam",
}
"""What a stage that has not run yet has not stored."""
STATES = {
    JobState.QUEUED: "state = 'queued'",
    JobState.LEASED: "state = 'leased', owner = 'worker-9', lease_expires_at = :now + 200",
    JobState.PARKED: "state = 'parked', fault = 'operator', detail = 'as an operator wished'",
}


def earlier_revisions() -> list[str]:
    script = ScriptDirectory.from_config(_config())
    return sorted(r.revision for r in script.walk_revisions() if r.revision != head_revision())


@dataclass(frozen=True, kw_only=True)
class Past:
    """A data folder in which all exams are delivered, what came, and what went."""

    data: Path
    files: list[Path]
    received: Counter[str]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    files = radiograph_files(folder / "sent", 3 * (len(CASES) + 1))[1::3]  # they are assessed
    with running_storescp(folder / "pacs") as port:
        write_config(folder / "node", [("pacs", "PACS", port)])
        with running_node(folder / "node") as node:
            for sent in send_files(files, node.peer, calling_ae_title="MODALITY"):
                assert sent.status == 0x0000
            node.wait_until_idle(120)
        received = stored_in(folder / "pacs")
    return Past(data=node.settings.node.data_dir, files=files, received=received)


def copy_rows(connection: Connection) -> None:
    """Every row of the attached ledger, as far as the earlier schema has columns for it."""
    tables = connection.execute(text("SELECT name FROM main.sqlite_master WHERE type = 'table'"))
    names = [name for name in tables.scalars() if not name.startswith(("sqlite_", "alembic_"))]
    for name in names:
        there, here = (columns(connection, schema, name) for schema in ("present", "main"))
        shared = ", ".join(column for column in here if column in there)
        rows = f"SELECT {shared} FROM present.{name}"
        connection.execute(text(f"INSERT INTO main.{name} ({shared}) {rows}"))


def columns(connection: Connection, schema: str, table: str) -> list[str]:
    found = connection.execute(text(f"SELECT name FROM pragma_table_info('{table}', '{schema}')"))
    return list(found.scalars())


def interrupt(connection: Connection, exam_id: int, stage: Stage, state: JobState) -> None:
    """Have the exam be where its job of that stage is in that state."""
    values = {"exam": exam_id, "stage": stage.value, "now": time.time()}
    at = STAGES.index(stage)
    for output, statement in OUTPUTS.items():
        if STAGES.index(output) >= at:
            connection.execute(text(statement), values)
    if at <= STAGES.index(Stage.INFER):
        outcome = "UPDATE exams SET outcome = 'pending', reason = NULL WHERE exam_id = :exam"
        connection.execute(text(outcome), values)
    for later in STAGES[at + 1 :]:
        gone = "DELETE FROM jobs WHERE exam_id = :exam AND stage = :later"
        connection.execute(text(gone), values | {"later": later.value})
    job = f"UPDATE jobs SET {STATES[state]} WHERE exam_id = :exam AND stage = :stage"
    assert connection.execute(text(job), values).rowcount == 1


def make_ledger(path: Path, revision: str, present: Path) -> None:
    """A ledger of an earlier revision with the present one's exams, in every state."""
    database = Database(path)
    with database._engine.connect() as connection:
        attach = text("ATTACH DATABASE :path AS present")
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(
            attach, {"path": str(present)}
        )
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        copy_rows(connection)
        exams = connection.execute(text("SELECT exam_id FROM exams ORDER BY exam_id")).scalars()
        for exam_id, case in zip(list(exams), CASES, strict=False):
            interrupt(connection, exam_id, *case)
        connection.commit()
    database.close()


@pytest.mark.parametrize("revision", earlier_revisions())
def test_what_an_earlier_version_left_open_is_reported(
    past: Past, tmp_path: Path, revision: str
) -> None:
    data = tmp_path / "node" / "data"
    shutil.copytree(past.data, data, ignore=shutil.ignore_patterns("ledger.sqlite*", "run"))
    make_ledger(data / "ledger.sqlite", revision, past.data / "ledger.sqlite")
    assert current_revision(data / "ledger.sqlite") == revision
    with running_storescp(tmp_path / "pacs") as port:
        write_config(tmp_path / "node", [("pacs", "PACS", port)])
        with running_node(tmp_path / "node") as node:
            assert current_revision(data / "ledger.sqlite") == head_revision()
            node.wait_until_idle(120)
            received = stored_in(tmp_path / "pacs") + delivered_before(node)
            assert received.keys() <= past.received.keys(), "the same objects"
            fates = check_fates(node, past.files, received)
            parked = [case for case in CASES if case[1] is JobState.PARKED]
            assert fates.parked == len(parked)
            assert fates.reported == len(past.files) - len(parked)
            check_rest(node, restarts=0)
    check_stopped(node)


def delivered_before(node: Node) -> Counter[str]:
    """Of the last exam, which had been delivered."""
    ledger = node.ledger()
    [last] = ledger.exams(limit=1)
    found = ledger.exam_details(last.exam_id)
    ledger.close()
    return Counter(answer.sent_sop_instance_uid for answer in found.deliveries)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Node]:
    """A node that runs."""
    write_config(tmp_path / "node", [])
    node = start_node(tmp_path / "node")
    yield node
    if node.process.poll() is None:
        node.kill()


def test_a_new_version_waits_for_an_old_one_that_drains(old: Node, tmp_path: Path) -> None:
    first, second = radiograph_files(tmp_path / "sent", 2)
    ae = AE("MODALITY")
    ae.add_requested_context(DX_IMAGE, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", old.note["port"], ae_title="BONEAGE")
    assert association.send_c_store(first).Status == 0x0000
    old.process.send_signal(signal.SIGTERM)
    wait_until(lambda: old.log().count("drain_started") == 2)
    new = begin_node(old.folder)
    lock = old.settings.node.data_dir / "run" / "lock"
    wait_until(lambda: lock in new.open_files(), seconds=30)
    assert association.send_c_store(second).Status == 0x0000, "the old one finishes"
    assert old.log().count("ledger_migrated") == 1, "the new one has touched nothing"
    assert new.children() == []
    association.release()
    assert old.process.wait(60) == 0
    new.wait_until_ready()
    new.wait_until_idle(60)
    check_fates(new, [first, second], Counter())
    check_rest(new, restarts=0)
    assert new.stop() == 0
    check_stopped(new)
