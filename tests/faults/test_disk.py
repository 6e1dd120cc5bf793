"""A disk that fails under a running node: nothing is acknowledged that is not safe."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import RunningReceiver, file_system, running_receiver
from tests.peers.invariants import check_fates, check_rest, check_stopped
from tests.peers.node import Node, running_node, start_node, write_config

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"


@contextmanager
def failing_syncs(pid: int, *, of: Path | None = None) -> Iterator[None]:
    """Every fsync and fdatasync of a process fails with EIO, or those of one file."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    calls = "fsync,fdatasync"
    command = [strace, "-f", "-p", str(pid), "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:error=EIO", *(["-P", str(of)] if of else [])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        said = ""
        while "attached" not in said:
            said = tracer.stderr.readline().decode()
            if tracer.poll() is not None or "not permitted" in said:
                pytest.skip(f"this system does not let strace attach: {said.strip()}")
        try:
            yield
        finally:
            tracer.terminate()
            tracer.communicate()


def receiver(node: Node) -> int:
    """Process id of the node's only receiver."""
    for pid in node.children():
        if b"receiver-0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no receiver runs")


def checks(node: Node) -> dict[str, str]:
    """What /readyz says while it fails."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        node.get("/readyz")
    assert caught.value.code == 503
    return dict(json.load(caught.value)["checks"])


def test_a_failed_fsync_ends_the_intake_until_a_restart_and_loses_nothing(tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{number}.dcm", hand_dataset()) for number in range(3)]
    write_config(tmp_path / "node", [])
    node = start_node(tmp_path / "node")
    try:
        ae = AE("MODALITY")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        assert association.send_c_store(files[0]).Status == 0x0000
        with failing_syncs(receiver(node)):
            assert association.send_c_store(files[1]).Status == 0xA700
        assert association.send_c_store(files[2]).Status == 0xA700, "the disk is not trusted again"
        association.release()
        assert not ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE").is_established
        assert "restart the node" in checks(node)["disk"]
        node.wait_until_idle(60)
        assert node.stop() == 0

        node = start_node(tmp_path / "node")
        association = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        for path in files:
            assert association.send_c_store(path).Status == 0x0000
        association.release()
        node.wait_until_idle(60)
        assert exams(node) == 3
        assert check_fates(node, files, Counter()).parked == 0
        check_rest(node, answered=3, restarts=0)
        assert node.stop() == 0
    finally:
        if node.process.poll() is None:
            node.kill()
    check_stopped(node)


def test_a_ledger_that_cannot_be_synced_is_out_of_resources_and_recovers(tmp_path: Path) -> None:
    """SQLite undoes the transaction: without a row there is no success."""
    first, second = (write_file(tmp_path / f"{n}.dcm", hand_dataset()) for n in range(2))
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node") as node:
        ae = AE("MODALITY")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        assert association.send_c_store(first).Status == 0x0000
        wal = node.settings.node.data_dir / "ledger.sqlite-wal"
        with failing_syncs(receiver(node), of=wal):
            assert association.send_c_store(second).Status == 0xA700
        assert exams(node) == 1
        assert association.send_c_store(second).Status == 0x0000
        association.release()
        assert exams(node) == 2
        node.wait_until_idle(60)
        check_fates(node, [first, second], Counter())
        check_rest(node, answered=2, restarts=0)


def exams(node: Node) -> int:
    """How many exams the ledger holds."""
    ledger = node.ledger()
    found = len(ledger.exams(limit=10))
    ledger.close()
    return found


def send(receiver: RunningReceiver, path: Path) -> int:
    """Status of the answer to one image."""
    ae = AE("MODALITY")
    ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
    association = ae.associate(*receiver.endpoint, ae_title="BONEAGE")
    assert association.is_established
    status: int = association.send_c_store(path).Status
    association.release()
    return status


def test_a_disk_without_inodes_is_answered_and_recovers(tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{n}.dcm", hand_dataset(side_pixels=16)) for n in range(40)]
    with (
        file_system(tmp_path / "disk", "size=50m,nr_inodes=300") as disk,
        running_receiver(disk / "node") as node,
    ):
        sent = [send(node, path) for path in files]
        stored = sent.count(0x0000)
        assert 0 < stored < 40
        assert set(sent) == {0x0000, 0xA700}
        assert node.spool.usage_percent() < 90, "there is space, but no inode"
        kept = next(node.spool.incoming.parent.glob("objects/*/*.dcm"))
        kept.unlink()
        assert send(node, files[-1]) == 0x0000
        assert len(node.instances) == stored + 1


def test_a_disk_that_becomes_read_only_is_answered_and_recovers(tmp_path: Path) -> None:
    first, second = (write_file(tmp_path / f"{n}.dcm", hand_dataset()) for n in range(2))
    with (
        file_system(tmp_path / "disk", "size=50m") as disk,
        running_receiver(disk / "node") as node,
    ):
        assert send(node, first) == 0x0000
        spool = node.spool.incoming.parent
        subprocess.run(["mount", "--bind", spool, spool], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", spool], check=True)
        try:
            assert send(node, second) == 0xA700
        finally:
            subprocess.run(["umount", "--lazy", spool], check=True)
        assert send(node, second) == 0x0000


def test_a_receiver_without_descriptors_goes_on_when_there_are_some(tmp_path: Path) -> None:
    write_config(tmp_path / "node", [])
    path = write_file(tmp_path / "hand.dcm", hand_dataset())
    with running_node(tmp_path / "node") as node:
        pid = receiver(node)
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        first_free = min(set(range(len(opened) + 1)) - opened)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, limits[1]))
        ae = AE("MODALITY")
        ae.acse_timeout = ae.network_timeout = 3
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        refused = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        assert not refused.is_established
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        association = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        assert association.send_c_store(path).Status == 0x0000
        association.release()
        assert receiver(node) == pid, "it never died of it"
        node.wait_until_idle(60)
        check_fates(node, [path], Counter())
        check_rest(node, answered=1, restarts=0)
