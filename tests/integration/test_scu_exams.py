"""The node as a client that sends exams, and the archive that plays a PACS."""

from __future__ import annotations

import threading
from pathlib import Path

import pydicom
from pydicom.uid import (
    ComputedRadiographyImageStorage,
)

from dicom_node.adapters.scu import (
    send_files,
)
from dicom_node.domain.receipt import StoreStatus
from dicom_node.scp.archive_peer import ArchivePeer
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.integration.peers import (
    free_port,
    peer_at,
    wait_until,
)


def hand_files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"hand-{number}.dcm" for number in range(count)]
    return [write_file(path, hand_dataset(side_pixels=16)) for path in paths]


def test_several_associations_send_every_file_once(archive: ArchivePeer, tmp_path: Path) -> None:
    files = hand_files(tmp_path, 40)
    results = list(
        send_files(files, peer_at(archive.bound_port), calling_ae_title="TEST", associations=4)
    )
    assert sorted(result.path for result in results) == sorted(files)
    assert {(result.status, result.error) for result in results} == {(0, "")}
    assert all(result.seconds > 0 for result in results)
    assert len(archive.arrived) == 40


def test_bad_files_are_named_and_do_not_stop_the_others(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    [good] = hand_files(tmp_path, 1)
    text, absent = tmp_path / "text.dcm", tmp_path / "absent.dcm"
    text.write_text("no DICOM")
    results = send_files([text, absent, good], peer_at(archive.bound_port), calling_ae_title="TEST")
    by_path = {result.path: result for result in results}
    assert "not a readable DICOM file" in by_path[text].error
    assert "No such file" in by_path[absent].error
    assert by_path[good].status == 0


def test_a_failure_status_is_the_files_own_result(tmp_path: Path) -> None:
    files = hand_files(tmp_path, 3)
    bad = str(pydicom.dcmread(files[1]).SOPInstanceUID)
    peer = ArchivePeer(tmp_path / "a", answer=lambda uid: 0xA900 if uid == bad else 0x0000)
    peer.start()
    results = list(send_files(files, peer_at(peer.bound_port), calling_ae_title="TEST"))
    peer.stop()
    assert [result.status for result in results] == [0, StoreStatus.MISMATCH, 0]


def test_more_than_128_contexts_go_over_several_associations(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    files = [
        write_file(tmp_path / f"{n}.dcm", hand_dataset(side_pixels=16, SOPClassUID=f"1.2.3.{n}"))
        for n in range(140)
    ]
    [known] = hand_files(tmp_path, 1)
    results = list(
        send_files([*files, known], peer_at(archive.bound_port), calling_ae_title="TEST")
    )
    assert len(results) == 141
    refused = [result for result in results if result.path != known]
    assert all("accept" in result.error for result in refused)
    assert [result.status for result in results if result.path == known] == [0]


def test_a_class_that_the_peer_does_not_accept_is_named(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    [good] = hand_files(tmp_path, 1)
    private = write_file(tmp_path / "private.dcm", hand_dataset(SOPClassUID="1.2.3.4"))
    results = send_files([private, good], peer_at(archive.bound_port), calling_ae_title="TEST")
    assert [(result.status, bool(result.error)) for result in results] == [(None, True), (0, False)]


def test_every_file_of_a_peer_that_is_down_has_the_cause(tmp_path: Path) -> None:
    files = hand_files(tmp_path, 3)
    results = list(send_files(files, peer_at(free_port()), calling_ae_title="TEST", associations=2))
    assert len(results) == 3
    assert all("Connection refused" in result.error for result in results)


def test_a_caller_that_stops_listening_stops_the_sending(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    results = send_files(
        hand_files(tmp_path, 200), peer_at(archive.bound_port), calling_ae_title="TEST"
    )
    assert next(results).status == 0
    results.close()  # type: ignore[attr-defined]  # a generator; the interface says less
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("sender-")])
    assert len(archive.arrived) < 200


def test_the_archive_waits_for_what_it_is_told(archive: ArchivePeer, tmp_path: Path) -> None:
    assert not archive.wait_for(1, timeout_seconds=0.05)
    [path] = hand_files(tmp_path, 1)
    list(send_files([path], peer_at(archive.bound_port), calling_ae_title="TEST"))
    assert archive.wait_for(1, timeout_seconds=10)
    [uid] = archive.arrived
    assert data_set_bytes(archive.path(uid)) == data_set_bytes(path)
    assert pydicom.dcmread(archive.path(uid)).SOPClassUID == ComputedRadiographyImageStorage
