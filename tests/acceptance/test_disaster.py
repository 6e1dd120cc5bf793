"""A disaster-recovery drill: a node loses its disk, and comes back from its backup."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.backup import MANIFEST
from dicom_node.cli import main
from dicom_node.scp.archive_peer import ArchivePeer
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import wait_until
from tests.peers.node import Node, running_node, write_config
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres


@pytest.fixture
def centre(tmp_path: Path) -> Postgres:  # type: ignore[misc]
    with running_centre(tmp_path / "centre") as running:
        yield running


def send(node: Node, files: list[Path]) -> None:
    assert all(sent.status == 0 for sent in send_files(files, node.peer, calling_ae_title="CR"))


def test_a_node_that_lost_its_disk_lacks_only_what_came_after_the_backup(
    centre: Postgres, tmp_path: Path
) -> None:
    pacs = ArchivePeer(tmp_path / "pacs")
    pacs.start()
    folder, kept = tmp_path / "node", tmp_path / "backup"
    write_config(
        folder,
        [("pacs", pacs.ae_title, pacs.bound_port)],
        node='name = "sp-1"\nregion = "SP"',
        extra=f'[central]\nurl = "{centre.url("node_sp").replace("+psycopg2", "")}"\n'
        '[inference]\nworkers = 1\ndevice = "cpu"\n',
    )
    files = radiograph_files(tmp_path / "hands", 5)
    with running_node(folder) as node:
        send(node, files[:2])
        node.wait_until_idle(60)
        assert list((folder / "data" / "keys" / "central").rglob("*.key"))  # before the backup
        assert node.command("backup", str(kept), "--json")["copied"] == 2
        send(node, files[2:3])  # while it runs; the second backup is of what is new
        again = node.command("backup", str(kept), "--json")
        assert (again["objects"], again["copied"]) == (3, 1)
        made_at = again["made_at"]
        send(node, files[3:])
        node.wait_until_idle(60)
        wait_until(lambda: centre.sql("SELECT count(*) FROM exams") == "5", seconds=30)
        node.kill()
    shutil.rmtree(folder / "data")

    restored = CliRunner().invoke(
        main, ["restore", str(kept), "--config", str(folder / "node.toml"), "--json"]
    )
    assert restored.exit_code == 0, restored.output
    assert json.loads(restored.output)["objects"] == 3
    with running_node(folder) as node:
        node.wait_until_idle(60)
        ledger = node.ledger()
        assert len(ledger.exams(limit=10)) == 3
        ledger.close()
        since = made_at[:19]
        missing = node.command("central", "missing", "--since", since, "--json")
        assert len(missing) == 2
        assert {item["institution_id"] for item in missing} == {"local"}
        send(node, files[3:])  # as the PACS does when it is asked to
        node.wait_until_idle(60)
        assert node.command("central", "missing", "--since", since, "--json") == []
    assert len(pacs.arrived) == 10  # five reports of two objects, none twice under another UID
    pacs.stop()


def folder_with_an_exam(folder: Path) -> tuple[Path, Path]:
    """A configuration and a backup of its data folder, made by a node with one exam."""
    write_config(folder, [], extra='[inference]\nworkers = 1\ndevice = "cpu"\n')
    with running_node(folder) as node:
        send(node, radiograph_files(folder / "hands", 1))
        node.wait_until_idle(60)
        node.command("backup", str(folder / "backup"), "--json")
    return folder / "node.toml", folder / "backup"


def restore(config: Path, kept: Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["--lang", "en", "restore", str(kept), "--config", str(config)])
    return done.exit_code, done.output


def test_what_is_no_whole_backup_is_refused(tmp_path: Path) -> None:
    config, kept = folder_with_an_exam(tmp_path / "node")
    assert "has a ledger" in restore(config, kept)[1]
    shutil.move(tmp_path / "node" / "data", tmp_path / "old")
    (tmp_path / "node" / "data").mkdir()
    log = tmp_path / "node" / "data" / "ledger.sqlite-wal"
    log.write_bytes(b"of another ledger")
    assert "what is left of one" in restore(config, kept)[1]
    log.unlink()
    manifest = (kept / MANIFEST).read_text()
    (kept / MANIFEST).unlink()
    assert restore(config, kept)[0] == 1
    (kept / MANIFEST).write_text(manifest)
    ledger = (kept / "ledger.sqlite").read_bytes()
    (kept / "ledger.sqlite").write_bytes(ledger[:4096] + b"\0" * 4096 + ledger[8192:])
    code, said = restore(config, kept)
    assert (code, "damaged" in said) == (1, True)
    assert not (tmp_path / "node" / "data" / "ledger.sqlite").exists()
    (kept / "ledger.sqlite").write_bytes(ledger)
    [kept_object] = (kept / "spool" / "objects").rglob("*.dcm")
    content = kept_object.read_bytes()
    kept_object.write_bytes(content[:-1] + b"X")
    code, said = restore(config, kept)
    assert (code, kept_object.stem in said) == (1, True)
    shutil.rmtree(tmp_path / "node" / "data")
    kept_object.write_bytes(content)
    assert restore(config, kept)[0] == 0
    with closing(sqlite3.connect(tmp_path / "node" / "data" / "ledger.sqlite")) as restored:
        assert restored.execute("SELECT count(*) FROM exams").fetchone() == (1,)
    data = tmp_path / "node" / "data"
    private = [path for path in data.rglob("*") if "run" not in path.relative_to(data).parts]
    modes = {path.stat().st_mode & 0o077 for path in private}
    assert modes == {0}
