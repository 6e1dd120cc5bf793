"""`dicom-node audit`, and what the other commands leave in the trail: who, which step and why."""

from __future__ import annotations

import getpass
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.adapters.audit import (
    AuditForwarder,
    DiskTrail,
    LogFiles,
    operator,
    read_entries,
)
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.cli import main
from dicom_node.domain import audit
from dicom_node.domain.exam import Instance
from dicom_node.headers import read_identity
from dicom_node.settings import load_settings
from dicom_node.wiring import Wiring
from tests.builders.audit import AT, NODE, ORIGIN, PERSON, every_kind
from tests.builders.dicom_files import hand_dataset, write_file
from tests.peers.node import write_config


class Site:
    """A data folder with an exam whose job waits, and the command line on it."""

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        self.config = write_config(folder, [], extra=extra)
        self.wiring = Wiring(load_settings(self.config))
        self.folders = self.wiring.folders.audit
        migrate(self.wiring.folders.ledger)
        dataset = hand_dataset(StudyInstanceUID="1.2.3", PatientID="4711")
        partial = write_file(self.wiring.spool.incoming / "partial.dcm", dataset)
        identity = read_identity(partial)
        kept = self.wiring.spool.keep(partial)
        self.wiring.ledger.record_instance(
            Instance(
                sop_class_uid=identity.sop_class_uid,
                sop_instance_uid=identity.sop_instance_uid,
                transfer_syntax_uid=identity.transfer_syntax_uid,
                content_sha256=kept.content_sha256,
                size_bytes=kept.size_bytes,
                calling_ae_title="XRAY",
                peer_address="192.0.2.7",
                institution_id="local",
                received_at=AT,
            )
        )
        self.wiring.ledger.close()

    def run(self, *words: str) -> Result:
        """A command in English."""
        return CliRunner().invoke(main, ["--lang", "en", *words, "--config", str(self.config)])

    def told(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Action, outcome and objects of what was recorded."""
        return [(e.action, e.outcome, e.what) for e in read_entries(self.folders)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "node")


WHOSE = ("Study Instance UID 1.2.3",)
PATIENT = "Patient Number 4711"


def test_every_step_of_an_operator_is_told_with_its_reason(site: Site) -> None:
    steps = [
        ("job", "park", "1", "--reason", "sent twice"),
        ("job", "retry", "1"),
        ("job", "discard", "1", "--reason", "sent twice"),
        ("exam", "reassess", "1"),
        ("exam", "show", "1"),
    ]
    for words in steps:
        assert site.run(*words).exit_code == 0, words
    why = "Reason: sent twice"
    assert site.told() == [
        ("U", "0", (*WHOSE, "Step: job park 1", why, PATIENT)),
        ("U", "0", (*WHOSE, "Step: job retry 1", PATIENT)),
        ("U", "0", (*WHOSE, "Step: job discard 1", why, PATIENT)),
        ("U", "0", (*WHOSE, "Step: exam reassess 1", PATIENT)),
        ("R", "0", (*WHOSE, "Step: exam show 1", PATIENT)),
    ]
    [entry, *_] = read_entries(site.folders)
    assert entry.who[0].startswith(f"{getpass.getuser()}@")
    assert entry.who[1].startswith("BONEAGE (")


def test_a_step_that_is_not_allowed_is_a_failure_and_an_unknown_one_is_nobodys(site: Site) -> None:
    assert site.run("job", "retry", "1").exit_code == 1
    assert site.run("job", "retry", "99").exit_code == 1
    assert site.run("exam", "show", "99").exit_code == 1
    [(action, outcome, what)] = site.told()
    assert (action, outcome) == ("U", "4")
    assert "Step: job retry 1" in what


def test_an_exam_whose_object_is_gone_is_told_of_too(site: Site) -> None:
    for path in (site.wiring.folders.spool / "objects").glob("??/*.dcm"):
        path.unlink()
    assert site.run("job", "park", "1", "--reason", "gone").exit_code == 0
    [(_, _, what)] = site.told()
    assert {"Step: job park 1", "Reason: gone"} <= set(what)


def test_without_audit_nothing_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "node", extra="[audit]\nenabled = false\n")
    assert site.run("exam", "show", "1").exit_code == 0
    assert not site.folders.root.exists()


def test_a_step_that_cannot_be_told_is_taken_with_a_warning(site: Site) -> None:
    site.folders.root.write_text("no folder")
    done = site.run("job", "park", "1", "--reason", "x")
    assert done.exit_code == 0
    assert "audit trail did not take this step" in done.stderr
    assert "audit trail" not in done.stdout


def test_the_trail_is_shown_and_looking_is_told(site: Site) -> None:
    trail = DiskTrail(site.folders, ORIGIN)
    assert all(trail.record(message) for message in every_kind().values())
    done = site.run("audit")
    assert done.exit_code == 0
    for shown in ("Security Alert, Node Authentication", "XRAY (192.0.2.7)", "instances: 2"):
        assert shown in done.stdout
    assert "Reason: sent twice — ação" in done.stdout
    last = read_entries(site.folders)[-1]
    assert (last.event, last.action) == ("Audit Log Used", "R")
    assert last.what == (f"URI {site.folders.root.as_uri()}",)


def test_the_newest_since_a_time_as_json(site: Site) -> None:
    trail = DiskTrail(site.folders, ORIGIN)
    for day in range(4):
        trail.record(audit.started(NODE, PERSON, AT + timedelta(days=day)))
    AuditForwarder(site.folders, LogFiles(site.folders.root)).forward()
    found = json.loads(site.run("audit", "--json", "--since", "2026-03-04", "--limit", "9").stdout)
    assert [entry["sequence"] for entry in found] == [3, 4]
    assert found[0]["at"].startswith("2026-03-04T14:05:11")
    newest = json.loads(site.run("audit", "--json", "--limit", "1").stdout)
    assert newest[0]["event"] == "Audit Log Used"
    assert site.run("audit", "--since", "yesterday").exit_code == 2


def test_without_a_trail_it_says_what_to_do(tmp_path: Path) -> None:
    config = write_config(tmp_path, [])
    done = CliRunner().invoke(main, ["--lang", "pt-BR", "audit", "--config", str(config)])
    assert done.exit_code == 1
    assert "não há trilha de auditoria" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root believes SUDO_USER")
def test_behind_sudo_it_is_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "maria")
    assert operator().login == "maria"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert operator().login == "12345", "anybody may set a variable"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_what_root_records_the_node_can_read(site: Site) -> None:
    site.folders.root.mkdir()
    os.chown(site.folders.root, 1234, 1234)
    site.run("exam", "show", "1")
    [file] = site.folders.queue.iterdir()
    made = (file, site.folders.queue, site.folders.sequence)
    assert [path.stat().st_uid for path in made] == [1234] * 3
