"""What the spool on disk does. It has no fake: a folder of the test is quick enough."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE
from dicom_node.domain.errors import Fault, Permanent, Transient

DATA_SET = b"\x08\x00\x18\x00UI\x04\x001.2\0" + bytes(range(256)) * 5000


def dicom_file(data_set: bytes = DATA_SET, *, meta_length: int = 64) -> bytes:
    """PS3.10 7.1: preamble, prefix, group length, the rest of group 0002, data set."""
    group_length = b"\x02\x00\x00\x00UL\x04\x00" + meta_length.to_bytes(4, "little")
    return bytes(128) + b"DICM" + group_length + b"m" * meta_length + data_set


def received(spool: DiskSpool, content: bytes | None = None, *, name: str = "1.part") -> Path:
    partial = spool.incoming / name
    partial.write_bytes(dicom_file() if content is None else content)
    return partial


def left_over(spool: DiskSpool) -> list[Path]:
    return list(spool.incoming.iterdir())


@pytest.fixture
def spool(tmp_path: Path) -> DiskSpool:
    return DiskSpool(tmp_path / "spool")


def test_a_data_set_that_was_hashed_on_arrival_is_not_read_again(spool: DiskSpool) -> None:
    known = hashlib.sha256(DATA_SET).hexdigest()
    kept = spool.keep(received(spool, name="2.part"), content_sha256=known)
    assert kept == spool.keep(received(spool))
    spool.verify(known)
    assert spool.keep(received(spool), content_sha256="ab" * 32).content_sha256 == "ab" * 32


def test_a_kept_object_is_the_received_file_under_the_hash_of_its_data_set(
    spool: DiskSpool,
) -> None:
    partial = received(spool)
    kept = spool.keep(partial)
    assert kept.content_sha256 == hashlib.sha256(DATA_SET).hexdigest()
    assert kept.size_bytes == len(dicom_file())
    assert spool.path(kept.content_sha256).read_bytes() == dicom_file()
    assert left_over(spool) == []


def test_a_file_written_by_pydicom_is_hashed_without_its_meta_information(
    spool: DiskSpool,
) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Rows = CR_IMAGE_STORAGE, "1.2.3", 7
    hashes = set()
    for sender in ("ONE", "ANOTHER SENDER"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.SendingApplicationEntityTitle = sender
        encoded = io.BytesIO()
        dcmwrite(encoded, ds, enforce_file_format=True)
        hashes.add(spool.keep(received(spool, encoded.getvalue())).content_sha256)
    del ds.file_meta
    plain = io.BytesIO()
    dcmwrite(plain, ds, enforce_file_format=False, implicit_vr=False, little_endian=True)
    assert hashes == {hashlib.sha256(plain.getvalue()).hexdigest()}


@settings(max_examples=40, deadline=None)  # each example waits for the disk
@given(data_set=st.binary(max_size=3000), meta_length=st.integers(0, 3000))
def test_the_hash_covers_the_data_set_only(
    tmp_path_factory: pytest.TempPathFactory, data_set: bytes, meta_length: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "hashes"
    spool = DiskSpool(root)
    kept = spool.keep(received(spool, dicom_file(data_set, meta_length=meta_length)))
    assert kept.content_sha256 == hashlib.sha256(data_set).hexdigest()


def test_only_the_owner_can_read_what_is_kept(spool: DiskSpool) -> None:
    partial = received(spool)
    partial.chmod(0o666)
    path = spool.path(spool.keep(partial).content_sha256)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folders = [path.parent, path.parent.parent, spool.incoming, spool.incoming.parent]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_file_then_name_then_folder_reach_the_disk(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = received(spool)
    inode = partial.stat().st_ino
    calls = record_disk_calls(monkeypatch)
    path = spool.path(spool.keep(partial).content_sha256)
    assert calls == [("fsync", inode), ("replace", path), ("fsync", path.parent.stat().st_ino)]


def test_new_folders_reach_the_disk_before_the_first_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_disk_calls(monkeypatch)
    DiskSpool(tmp_path / "spool")
    folders = [tmp_path / "spool" / "objects", tmp_path / "spool", tmp_path]
    assert calls == [("fsync", folder.stat().st_ino) for folder in folders]


def record_disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """The real calls in their order: ("fsync", inode) and ("replace", target)."""
    calls: list[tuple[str, object]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        calls.append(("fsync", os.fstat(descriptor).st_ino))

    def recorded_replace(source: Path, target: Path) -> None:
        replace(source, target)
        calls.append(("replace", target))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return calls


def test_the_same_content_again_is_harmless(spool: DiskSpool) -> None:
    first = spool.keep(received(spool, dicom_file(meta_length=10)))
    second = spool.keep(received(spool, dicom_file(meta_length=99)))
    assert first.content_sha256 == second.content_sha256
    spool.verify(first.content_sha256)
    assert left_over(spool) == []


def test_eight_associations_may_keep_the_same_content_at_once(spool: DiskSpool) -> None:
    partials = [received(spool, name=f"{number}.part") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        hashes = {kept.content_sha256 for kept in threads.map(spool.keep, partials)}
    assert spool.sweep() == hashes == {hashlib.sha256(DATA_SET).hexdigest()}


def fail(*_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error")


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_for_folders(descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        fail()


@pytest.mark.parametrize(
    ("call", "failure"),
    [
        ("fchmod", fail),
        ("replace", fail),
        ("fsync", full),
    ],
    ids=["fchmod", "replace", "fsync of a full disk"],
)
def test_a_failing_disk_is_transient_and_leaves_no_partial(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch, call: str, failure: Callable[..., None]
) -> None:
    partial = received(spool)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failure)
        with pytest.raises(Transient) as caught:
            spool.keep(partial)
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
    assert left_over(spool) == []
    assert spool.keep(received(spool)).size_bytes == len(dicom_file())


@pytest.mark.parametrize("failure", [fail, fail_for_folders], ids=["file", "folder"])
def test_after_a_failed_fsync_nothing_is_kept_until_a_restart(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., None]
) -> None:
    root = spool.incoming.parent
    other = DiskSpool(root)  # of another process
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failure)
        with pytest.raises(Transient):
            spool.keep(received(spool))
    for process in (spool, other):
        with pytest.raises(Transient, match="restart the node") as caught:
            process.keep(received(process))
        assert caught.value.fault is Fault.STORAGE_UNAVAILABLE
        with pytest.raises(Transient, match="restart the node"):
            process.usage_percent()
    assert left_over(spool) == []
    restarted = DiskSpool(root)
    restarted.sweep()
    assert restarted.keep(received(restarted)).size_bytes == len(dicom_file())


def test_a_disk_that_does_not_answer_at_all_is_a_storage_error(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = received(spool)
    monkeypatch.setattr(Path, "stat", fail)
    for look in (spool.usage_percent, lambda: spool.keep(partial)):
        with pytest.raises(Transient) as caught:
            look()
        assert caught.value.fault is Fault.STORAGE_UNAVAILABLE


def test_a_partial_that_vanished_is_a_storage_error(spool: DiskSpool) -> None:
    with pytest.raises(Transient):
        spool.keep(spool.incoming / "gone.part")


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Transient):
        DiskSpool(tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(128),
        bytes(128) + b"DICM",
        dicom_file()[:142],
        dicom_file()[128:],
        b"%PDF-1.7" * 100,
        bytes(128) + b"DICM" + b"\x08\x00\x16\x00UI" + bytes(200),
    ],
)
def test_what_is_not_a_dicom_file_is_refused_and_removed(spool: DiskSpool, content: bytes) -> None:
    with pytest.raises(Permanent) as caught:
        spool.keep(received(spool, content))
    assert caught.value.fault is Fault.UNREADABLE_OBJECT
    assert spool.sweep() == frozenset()


def test_a_missing_object_is_corrupt_spool(spool: DiskSpool) -> None:
    for look in (spool.path, spool.verify):
        with pytest.raises(Permanent) as caught:
            look("ab" * 32)
        assert caught.value.fault is Fault.CORRUPT_SPOOL
        assert "sent again, then `dicom-node job retry ID`" in str(caught.value)


@pytest.mark.parametrize("at", [130, 140, 250, len(dicom_file()) - 1])
def test_a_changed_byte_is_found(spool: DiskSpool, at: int) -> None:
    content_sha256 = spool.keep(received(spool)).content_sha256
    spool.verify(content_sha256)
    path = spool.path(content_sha256)
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(Permanent) as caught:
        spool.verify(content_sha256)
    assert caught.value.fault is Fault.CORRUPT_SPOOL
    assert "sent again, then `dicom-node job retry ID`" in str(caught.value)


@pytest.mark.parametrize("length", [0, 135, 5000])
def test_a_truncated_object_is_found_and_healed_by_sending_it_again(
    spool: DiskSpool, length: int
) -> None:
    content_sha256 = spool.keep(received(spool)).content_sha256
    os.truncate(spool.path(content_sha256), length)
    with pytest.raises(Permanent):
        spool.verify(content_sha256)
    spool.keep(received(spool))
    spool.verify(content_sha256)


def test_the_sweep_removes_partials_and_names_what_is_kept(spool: DiskSpool) -> None:
    kept = {
        spool.keep(received(spool, dicom_file(bytes([number])))).content_sha256
        for number in range(5)
    }
    received(spool, b"half a file", name="a.part")
    received(spool, b"", name="b")
    assert spool.sweep() == kept
    assert left_over(spool) == []
    assert DiskSpool(spool.incoming.parent).sweep() == kept


def test_a_receiver_begins_in_an_empty_folder_of_its_own(spool: DiskSpool) -> None:
    first, other = spool.incoming_of("receiver-0"), spool.incoming_of("receiver-1")
    for folder in (first, other):
        (folder / "half.dcm").write_bytes(b"half an object")
    assert spool.incoming_of("receiver-0") == first
    assert list(first.iterdir()) == []
    assert list(other.iterdir()) == [other / "half.dcm"]
    assert first.stat().st_mode & 0o777 == 0o700
    assert spool.sweep() == frozenset()
    assert left_over(spool) == []


def test_usage_is_what_is_left_for_us_in_percent(tmp_path: Path, spool: DiskSpool) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert 0 < spool.usage_percent() <= 100
    assert spool.usage_percent() >= 100 * usage.used / usage.total - 1
