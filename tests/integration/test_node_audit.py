"""A whole node with DCMTK on both sides and what its audit trail says of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.adapters.audit import AuditFolders, read_entries, waiting
from dicom_node.adapters.predictor import MODELS
from dicom_node.adapters.scu.association import contexts_for, open_association
from dicom_node.audit import audited_run
from dicom_node.scp import guard
from dicom_node.scp.port import listen
from dicom_node.settings import AuditSettings, NodeSettings, Settings, load_settings
from dicom_node.tls import Certificates
from dicom_node.wiring import Wiring
from inference.bundle import find_bundle
from tests.builders.audit import parsed, schema_errors, xml_of
from tests.builders.certificates import Authority
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import (
    dcmtk,
    file_system,
    running_receiver,
    running_storescp,
    wait_until,
)
from tests.peers.node import Node, running_node, start_node, write_config
from tests.peers.rsyslog import Rsyslog, needs_rsyslog

KNOWN = """[receive]
require_known_sender = true
[[institutions]]
id = "clinic"
name = "Clinic"
calling_ae_titles = ["XRAY"]
"""
START, STOP, ALERT = "110120", "110121", "110113"
RECEIVED, SENT = ("110104", "C", "0"), ("110104", "R", "0")


def folders(node: Node) -> AuditFolders:
    return AuditFolders(root=node.settings.node.data_dir / "audit")


def lines(node: Node) -> list[bytes]:
    """What the files hold, each line of them right by the schema."""
    found = [
        line
        for path in sorted(folders(node).root.glob("*.log"))
        for line in path.read_bytes().splitlines()
    ]
    assert all(schema_errors(xml_of(line)) == [] for line in found)
    return found


def kind_of(line: bytes) -> tuple[str, str, str]:
    """Event, action and outcome."""
    event = parsed(line).find("EventIdentification")
    code = event.find("EventID").get("csd-code")
    return code, event.get("EventActionCode"), event.get("EventOutcomeIndicator")


def types_of(line: bytes) -> list[str]:
    return [str(item.get("csd-code")) for item in parsed(line).iter("EventTypeCode")]


def numbers(found: list[bytes]) -> list[int]:
    return [int(line.split(b'sequenceId="')[1].split(b'"')[0]) for line in found]


def send(node: Node, path: Path, *, calling: str = "XRAY") -> str:
    peer = node.peer
    address = ("-aet", calling, "-aec", peer.ae_title, peer.host, peer.port)
    return dcmtk("dcmsend", "-v", "-dn", *address, path)


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dicom_node", *arguments, "--config", str(config)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def objects_of(line: bytes) -> dict[str, Any]:
    """Kind of identifier to the participant object."""
    return {
        item.find("ParticipantObjectIDTypeCode").get("csd-code"): item
        for item in parsed(line).iter("ParticipantObjectIdentification")
    }


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[int]:
    with running_storescp(tmp_path / "stored", "-aet", "PACS") as port:
        yield port


@pytest.mark.timeout(600)
def test_what_a_day_of_a_node_leaves_in_the_trail(tmp_path: Path, archive: int) -> None:
    [hand] = radiograph_files(tmp_path / "sent", 1)
    write_config(tmp_path / "node", [("pacs", "PACS", archive)], extra=KNOWN)
    with running_node(tmp_path / "node") as node:
        assert "Received C-STORE Response (Success)" in send(node, hand)
        for _ in range(3):
            assert "Association Rejected" in send(node, hand, calling="STRANGER")
        node.wait_until_idle(120)
        wait_until(lambda: [kind_of(x) for x in lines(node)].count(SENT) == 1, seconds=60)
        shown = command(node.config, "exam", "show", "1")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert command(node.config, "exam", "reassess", "1").returncode == 0
        node.wait_until_idle(120)
        ledger = node.ledger()
        [done, *_] = ledger.jobs(limit=1)
        ledger.close()
        assert command(node.config, "job", "retry", str(done.job_id)).returncode == 1
        looked = json.loads(command(node.config, "audit", "--json").stdout)
        assert looked[0]["event"] == "Application Activity, Application Start"
        assert node.stop() == 0
    found = lines(node)
    assert waiting(folders(node)) == []
    assert sorted(numbers(found)) == list(range(1, len(found) + 1))
    assert (types_of(found[0]), types_of(found[-1])) == ([START], [STOP])
    kinds = [kind_of(line) for line in found]
    assert kinds.count(RECEIVED) == 1
    assert kinds.count((ALERT, "E", "4")) == 1, "three strangers within a minute"
    assert kinds.count(("110103", "R", "0")) == 1
    assert kinds.count(("110103", "U", "0")) == 1
    assert kinds.count(("110103", "U", "4")) == 1, "a job that is done cannot be retried"
    assert kinds.count(("110101", "R", "0")) == 1
    _check_transfers(found, hand)


def _check_transfers(found: list[bytes], hand: Path) -> None:
    dataset = dcmread(hand, stop_before_pixels=True)
    came = next(line for line in found if kind_of(line) == RECEIVED)
    went = next(line for line in found if kind_of(line) == SENT)
    for line, count in ((came, "1"), (went, "1")):
        about = objects_of(line)
        assert about["110180"].get("ParticipantObjectID") == dataset.StudyInstanceUID
        assert about["2"].get("ParticipantObjectID") == dataset.PatientID
        assert about["2"].findtext("ParticipantObjectName") == str(dataset.PatientName)
        assert {item.get("NumberOfInstances") for item in parsed(line).iter("SOPClass")} == {count}
    source, destination = parsed(came).iter("ActiveParticipant")
    assert (source.get("UserID"), source.get("NetworkAccessPointID")) == ("XRAY", "127.0.0.1")
    assert destination.get("AlternativeUserID") == "AETITLES=BONEAGE"
    assert [p.get("UserID") for p in parsed(went).iter("ActiveParticipant")][1] == "PACS"


def run_once(config: Path) -> list[list[str]]:
    """What the trail says of a run of a node: the types of its messages."""
    wiring = Wiring(load_settings(config))
    before = len(read_entries(wiring.folders.audit))
    with audited_run(wiring, str(config), wiring.predictor.verify()):
        pass
    return [entry.event.split(", ")[1:] for entry in read_entries(wiring.folders.audit)[before:]]


def test_a_changed_configuration_is_an_alert(tmp_path: Path) -> None:
    start_and_stop = [["Application Start"], ["Application Stop"]]
    config = write_config(tmp_path, [])
    assert run_once(config) == start_and_stop, "the first time there is nothing to compare"
    assert run_once(config) == start_and_stop
    write_config(tmp_path, [], extra="[inference]\nbatch_max = 4\n")
    assert run_once(config) == [["Software Configuration"], *start_and_stop]
    write_config(tmp_path, [], extra="[inference]\nbatch_max = 4\n", node='bind = "127.0.0.2"\n')
    assert run_once(config) == [["Network Configuration"], *start_and_stop]
    (tmp_path / "data" / "audit" / "configuration.json").write_text("damaged")
    assert run_once(config) == [["Software Configuration"], *start_and_stop]


def test_a_file_of_the_model_that_was_changed_is_an_alert(tmp_path: Path) -> None:
    bundle = find_bundle(MODELS, Settings().inference.model)
    copy = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    file = next(path for path in copy.rglob("*.onnx"))
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    config = write_config(tmp_path, [], extra=f"[inference]\nmodel = {json.dumps(str(copy))}\n")
    assert command(config, "serve").returncode == 1
    [waits] = waiting(Wiring(load_settings(config)).folders.audit)
    assert kind_of(waits.read_bytes()) == (ALERT, "E", "8")
    assert types_of(waits.read_bytes()) == ["110131"]


def test_a_model_that_does_not_exist_is_no_alert(tmp_path: Path) -> None:
    config = write_config(tmp_path, [], extra='[inference]\nmodel = "gone"\n')
    assert command(config, "serve").returncode == 1
    assert waiting(Wiring(load_settings(config)).folders.audit) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_certificates_that_are_refused_are_alerts_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(guard, "_told", {})
    authority, elsewhere = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    own, strange = authority.sign("node.example"), elsewhere.sign("stranger.example")
    server = Certificates(certificate=own.certificate, key=own.key, ca=authority.ca).server
    wiring = Wiring(
        Settings(node=NodeSettings(data_dir=tmp_path), audit=AuditSettings(enabled=enabled))
    )
    port = listen("127.0.0.1", 0)
    with running_receiver(
        tmp_path / "node", secure=(port, server), witness=wiring.witness("receiver-0")
    ):
        endpoint = port.getsockname()
        for _ in range(3):
            files = ("+tls", strange.key, strange.certificate, "+cf", authority.ca)
            said = dcmtk("echoscu", *files, *endpoint)
            assert "exit 0" not in said
        with socket.create_connection(endpoint):
            pass  # who only looks is no stranger
        wait_until(lambda: len(waiting(wiring.folders.audit)) == int(enabled))
    assert [entry.event for entry in read_entries(wiring.folders.audit)] == [
        "Security Alert, Node Authentication"
    ] * int(enabled)


@pytest.mark.timeout(600)
def test_a_receiver_that_is_killed_takes_no_message_with_it(tmp_path: Path) -> None:
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node") as node:
        image = dcmread(write_file(tmp_path / "x.dcm", hand_dataset(BodyPartExamined="X")))
        pair = (str(image.SOPClassUID), str(ExplicitVRLittleEndian))
        association = open_association(
            node.peer, contexts_for([pair]), calling_ae_title="XRAY", timeout_seconds=20
        )
        assert association.send_c_store(image).Status == 0
        os.kill(_receiver(node), signal.SIGKILL)
        association.abort()
        node.wait_until_ready()
        wait_until(lambda: RECEIVED in [kind_of(x) for x in lines(node)], seconds=60)
    assert [kind_of(line) for line in lines(node)].count(RECEIVED) == 1


def _receiver(node: Node) -> int:
    for pid in node.children():
        if b"receiver-0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no receiver")


@pytest.mark.timeout(600)
def test_an_audit_folder_that_takes_nothing_stops_no_exam(tmp_path: Path, archive: int) -> None:
    [hand] = radiograph_files(tmp_path / "sent", 1)
    write_config(tmp_path / "node", [("pacs", "PACS", archive)])
    (tmp_path / "node" / "data").mkdir()
    with (
        file_system(tmp_path / "node" / "data" / "audit", "size=64k,ro"),
        running_node(tmp_path / "node") as node,
    ):
        assert "Received C-STORE Response (Success)" in send(node, hand)
        node.wait_until_idle(120)
        wait_until(lambda: len(list((tmp_path / "stored").iterdir())) == 2, seconds=60)
        shown = command(node.config, "exam", "show", "1")
        assert shown.returncode == 0
        assert "audit trail" in shown.stderr
        assert "dicom_node_audit_failed_total 0" not in node.get("/metrics")
        assert node.stop() == 0
    log = (tmp_path / "node" / "node.log").read_text()
    assert '"event": "audit_failed"' in log


@needs_rsyslog
@pytest.mark.timeout(600)
def test_a_node_tells_its_repository_what_it_could_not_tell_before(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own, repositorys = authority.sign("node.example"), authority.sign("repository.example")
    rsyslog = Rsyslog(tmp_path / "rsyslog", authority, repositorys, peer="node.example")
    extra = f"""[tls]
certificate = "{own.certificate}"
key = "{own.key}"
ca = "{authority.ca}"
[audit]
syslog_host = "127.0.0.1"
syslog_port = {rsyslog.port}
"""
    write_config(tmp_path / "node", [], extra=extra)
    path = write_file(tmp_path / "x.dcm", hand_dataset(BodyPartExamined="X"))
    node = start_node(tmp_path / "node")
    try:
        assert "Success" in send(node, path)
        wait_until(lambda: len(waiting(folders(node))) == 2)
        assert "dicom_node_audit_waiting 2" in node.get("/metrics")
        with rsyslog.running():
            wait_until(lambda: len(rsyslog.received) == 2, seconds=90)
            assert node.stop() == 0
            wait_until(lambda: len(rsyslog.received) == 3, seconds=60)
    finally:
        if node.process.poll() is None:
            node.kill()
    assert numbers(rsyslog.received) == [1, 2, 3]
    assert [types_of(line) for line in rsyslog.received] == [[START], [], [STOP]]
    assert lines(node) == []
