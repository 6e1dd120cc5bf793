"""What cannot be understood is kept for a person, and costs nobody anything."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.adapters.quarantine import Contents, DiskQuarantine
from tests.builders.dicom_files import data_set_bytes, hand_dataset, raw_file, write_file
from tests.integration.peers import RunningReceiver, dcmtk, running_receiver, wait_until
from tests.peers.invariants import check_fates, check_rest, metrics
from tests.peers.node import Node, running_node, write_config


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    """A receiver with a quarantine beside its spool."""
    with running_receiver(tmp_path / "node") as running:
        yield running


def associate(port: int) -> Association:
    ae = AE("MODALITY")
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="BONEAGE")
    assert association.is_established
    return association


def statuses(port: int, *paths: Path) -> list[int]:
    association = associate(port)
    found = [int(association.send_c_store(path).Status) for path in paths]
    association.release()
    return found


def kept(spool: Path) -> list[Path]:
    return sorted((spool / "quarantine").glob("*"))


def test_what_cannot_be_understood_is_kept_whole_private_and_under_its_hash(
    receiver: RunningReceiver, tmp_path: Path
) -> None:
    garbage = raw_file(tmp_path / "garbage.dcm", b"%PDF-1.7 " * 100)
    other = data_set_bytes(write_file(tmp_path / "other.dcm", hand_dataset()))
    mismatch = raw_file(tmp_path / "mismatch.dcm", other)
    port = receiver.receiver.bound_port
    assert statuses(port, garbage, mismatch, garbage) == [0xC000, 0xA900, 0xC000]
    found = kept(receiver.spool.incoming.parent)
    assert len(found) == 2, "the same object once"
    for path in found:
        assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.dcm"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    assert stat.S_IMODE(found[0].parent.stat().st_mode) == 0o700
    contents = {path.read_bytes().partition(b"1.2.840.10008.1.2.1\0")[2][-900:] for path in found}
    assert {b"%PDF-1.7 " * 100, other[-900:]} == contents
    wait_until(lambda: receiver.incoming == [])
    assert receiver.stored == []


def test_a_good_object_and_a_disk_that_fails_leave_nothing(
    receiver: RunningReceiver, tmp_path: Path
) -> None:
    port, spool = receiver.receiver.bound_port, receiver.spool.incoming.parent
    good = write_file(tmp_path / "good.dcm", hand_dataset())
    assert statuses(port, good) == [0x0000]
    objects = spool / "objects"
    association = associate(port)
    objects.rename(spool / "lost")
    assert association.send_c_store(good).Status == 0xA700
    association.release()
    (spool / "lost").rename(objects)
    assert kept(spool) == []


def test_a_quarantine_that_cannot_be_written_changes_no_answer(
    receiver: RunningReceiver, tmp_path: Path
) -> None:
    (receiver.spool.incoming.parent / "quarantine").write_text("in the way")
    garbage = raw_file(tmp_path / "garbage.dcm", b"?" * 100)
    good = write_file(tmp_path / "good.dcm", hand_dataset())
    port = receiver.receiver.bound_port
    assert statuses(port, garbage, good, garbage) == [0xC000, 0x0000, 0xC000]


@pytest.mark.parametrize("limits", [{"max_files": 3}, {"max_bytes": 350}])
def test_the_oldest_go_first(tmp_path: Path, limits: dict[str, int]) -> None:
    quarantine = DiskQuarantine(tmp_path / "quarantine", **limits)
    assert quarantine.contents() == Contents(files=0, bytes=0)
    hashes = []
    for number in range(6):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes([number]) * 100)
        os.utime(path, (number, number))
        object_kept = quarantine.keep(path)
        assert object_kept is not None
        hashes.append(object_kept.content_sha256)
    assert quarantine.contents() == Contents(files=3, bytes=300)
    assert {path.stem for path in quarantine.folder.iterdir()} == set(hashes[3:])


def test_an_object_that_comes_again_is_among_the_newest(tmp_path: Path) -> None:
    quarantine = DiskQuarantine(tmp_path / "quarantine", max_files=2)
    first, second, third = (tmp_path / f"{number}.dcm" for number in range(3))
    for number, path in enumerate((first, second, third)):
        path.write_bytes(path.name.encode())
        os.utime(path, (number, number))
    quarantine.keep(first)
    quarantine.keep(second)
    again = quarantine.keep(first)
    quarantine.keep(third)
    assert again is not None
    assert quarantine.contents().files == 2
    assert f"{again.content_sha256}.dcm" in {p.name for p in quarantine.folder.iterdir()}


def test_a_node_tells_how_much_there_is_and_names_nobody(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = write_file(tmp_path / "wrong.dcm", hand_dataset(SOPInstanceUID="1.2..3"))
    good = write_file(tmp_path / "good.dcm", hand_dataset())
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node") as node:
        to_node = (
            "-v",
            "-nuc",
            "-aet",
            "MODALITY",
            "-aec",
            "BONEAGE",
            "127.0.0.1",
            node.note["port"],
        )
        assert "with status ERROR    : 1" in dcmtk("dcmsend", *to_node, wrong)
        assert statuses(node.note["port"], good) == [0x0000]
        node.wait_until_idle(60)
        [event] = events(node, "object_quarantined")
        [path] = kept(node.settings.node.data_dir / "spool")
        assert event["sha256"] == path.stem
        assert event["bytes"] == path.stat().st_size
        assert (event["peer"], event["status"]) == ("127.0.0.1", "0xA900")
        assert "ZZCANARY" not in (tmp_path / "node" / "node.log").read_text()
        found = node.command("status", "--json")["quarantine"]
        assert found == {"files": 1, "bytes": event["bytes"], "folder": str(path.parent)}
        assert metrics(node)["dicom_node_quarantined_total{0xA900}"] == 1
        check_fates(node, [good], Counter())
        check_rest(node, answered=1, restarts=0)


def events(node: Node, name: str) -> list[dict[str, object]]:
    lines = (node.folder / "node.log").read_text().splitlines()
    return [found for line in lines if (found := json.loads(line))["event"] == name]
