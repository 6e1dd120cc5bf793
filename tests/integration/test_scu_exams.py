"""The node as a client that sends exams, and the archive that plays a PACS."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.adapters.scu import (
    Load,
    send_files,
    send_load,
)
from dicom_node.adapters.scu.renewed import write_renewed
from dicom_node.domain.receipt import StoreStatus
from dicom_node.scp.archive_peer import ArchivePeer
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.builders.exams import save_dicom
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


def stored(archive: ArchivePeer) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(archive.path(uid)) for uid in archive.arrived]


def test_what_is_repeated_differs_in_its_uids_and_in_nothing_else(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    [path] = hand_files(tmp_path, 1)
    load = Load(associations=3, repeat=6)
    results = list(send_load([path], peer_at(archive.bound_port), load, calling_ae_title="TEST"))
    assert [result.status for result in results] == [0] * 6
    source, copies = pydicom.dcmread(path), stored(archive)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert len({source[keyword].value, *(copy[keyword].value for copy in copies)}) == 7
        for dataset in (source, *copies):
            del dataset[keyword]
    assert all(copy == source for copy in copies)


def test_images_of_one_study_stay_together_when_they_are_repeated(
    archive: ArchivePeer, tmp_path: Path
) -> None:
    files = [
        write_file(tmp_path / f"{n}.dcm", hand_dataset(side_pixels=16, StudyInstanceUID="1.2.3"))
        for n in range(2)
    ]
    load = Load(repeat=2)
    results = send_load(files, peer_at(archive.bound_port), load, calling_ae_title="TEST")
    assert [result.status for result in results] == [0] * 4
    assert len({copy.StudyInstanceUID for copy in stored(archive)}) == 2
    assert len(archive.arrived) == 4


@pytest.mark.parametrize(
    "syntax", [JPEGLSLossless, ImplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name
)
def test_pixels_are_repeated_byte_by_byte_in_every_encoding(
    syntax: UID, archive: ArchivePeer, tmp_path: Path
) -> None:
    dataset = hand_dataset(side_pixels=16)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = save_dicom(dataset, tmp_path / "coded.dcm", syntax)
    load = Load(repeat=2)
    results = send_load([path], peer_at(archive.bound_port), load, calling_ae_title="TEST")
    assert [result.status for result in results] == [0, 0]
    for copy in stored(archive):
        assert copy.file_meta.TransferSyntaxUID == syntax
        assert copy.PixelData == pydicom.dcmread(path).PixelData


def test_a_deflated_file_is_not_repeated(tmp_path: Path) -> None:
    dataset = hand_dataset(side_pixels=16)
    path = write_file(
        tmp_path / "d.dcm", dataset, transfer_syntax_uid=DeflatedExplicitVRLittleEndian
    )
    with pytest.raises(ValueError, match="deflated"):
        write_renewed(path, tmp_path / "copy.dcm", uuid.uuid4())


def test_a_rate_is_kept_over_all_associations(archive: ArchivePeer, tmp_path: Path) -> None:
    files = hand_files(tmp_path, 10)
    begun = time.monotonic()
    load = Load(associations=4, rate=20.0)
    results = list(send_load(files, peer_at(archive.bound_port), load, calling_ae_title="TEST"))
    assert time.monotonic() - begun >= 9 / 20
    assert [result.status for result in results] == [0] * 10
    assert all(result.late_seconds >= 0 for result in results)


def test_a_load_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="duration"):
        Load(repeat=None)


def test_a_load_without_an_end_ends_when_nobody_answers(tmp_path: Path) -> None:
    [path] = hand_files(tmp_path, 1)
    load = Load(repeat=None, seconds=30.0, associations=2)
    results = list(send_load([path], peer_at(free_port()), load, calling_ae_title="TEST"))
    assert all("no connection" in result.error for result in results)
