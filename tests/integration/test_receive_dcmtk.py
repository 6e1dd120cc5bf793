"""The receiver against DCMTK's senders and raw bytes, with the real spool and ledger."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.adapters.scu import Peer, send_files
from dicom_node.domain.exam import Receipt
from dicom_node.settings import ReceiveSettings, Settings
from tests.builders.dicom_files import data_set_bytes, hand_dataset, raw_file, write_file
from tests.integration.peers import (
    RunningReceiver,
    cutting_proxy,
    dcmtk,
    running_receiver,
    wait_until,
)

TO_NODE = ("-aet", "MODALITY", "-aec", "BONEAGE")


@pytest.fixture
def node(tmp_path: Path, fast_path: bool) -> Iterator[RunningReceiver]:
    settings = limits(fast_path=fast_path)
    with running_receiver(tmp_path / "node", settings=settings) as running:
        yield running


def limits(**receive: int) -> Settings:
    return Settings(receive=ReceiveSettings.model_validate(receive))


def hand_file(folder: Path, name: str = "hand.dcm", *, side_pixels: int = 64) -> Path:
    return write_file(folder / name, hand_dataset(side_pixels=side_pixels))


def peer_of(node: RunningReceiver) -> Peer:
    return Peer(host="127.0.0.1", port=node.receiver.bound_port, ae_title="BONEAGE")


def associate(node: RunningReceiver) -> Association:
    ae = AE("MODALITY")
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", node.receiver.bound_port, ae_title="BONEAGE")


def test_c_echo(node: RunningReceiver) -> None:
    assert "Success" in dcmtk("echoscu", "-v", *TO_NODE, *node.address)


# name: (how DCMTK or pydicom makes it, storescu's option to propose it)
SYNTAXES = {
    "1.2.840.10008.1.2": ("+ti", "-xi"),
    "1.2.840.10008.1.2.1": ("+te", "-xe"),
    "1.2.840.10008.1.2.5": ("dcmcrle", "-xr"),
    "1.2.840.10008.1.2.4.50": ("dcmcjpeg +eb", "-xy"),
    "1.2.840.10008.1.2.4.51": ("dcmcjpeg +ee", "-xx"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg +e1", "-xs"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls +el", "-xt"),
    "1.2.840.10008.1.2.4.81": ("dcmcjpls +en", "-xu"),
    "1.2.840.10008.1.2.4.90": ("pydicom", "-xv"),
    "1.2.840.10008.1.2.4.91": ("pydicom", "-xw"),
}


def encoded_file(folder: Path, syntax: str) -> Path:
    """A hand radiograph in a transfer syntax, encoded by the tool that knows it."""
    how, _ = SYNTAXES[syntax]
    plain, encoded = hand_file(folder, "plain.dcm"), folder / "encoded.dcm"
    if how == "pydicom":
        dataset = pydicom.dcmread(plain)
        options: dict[str, Any] = {"j2k_cr": [10.0]} if syntax == JPEG2000 else {}
        dataset.compress(syntax, **options)
        dataset.save_as(encoded)
    else:
        program, *arguments = how.split() if " " in how or how[0] == "d" else ("dcmconv", how)
        assert dcmtk(program, *arguments, plain, encoded).startswith("exit 0")
    assert pydicom.dcmread(encoded).file_meta.TransferSyntaxUID == syntax
    return encoded


def assert_kept_as_sent(node: RunningReceiver, sent: Path, syntax: str) -> None:
    [instance] = node.instances
    assert instance.transfer_syntax_uid == syntax
    assert instance.calling_ae_title == "MODALITY"
    kept = node.spool.path(instance.content_sha256)
    assert data_set_bytes(kept) == data_set_bytes(sent)
    node.spool.verify(instance.content_sha256)
    assert instance.size_bytes == kept.stat().st_size
    assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == syntax
    assert node.incoming == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_storescu_stores_every_transfer_syntax_byte_for_byte(
    node: RunningReceiver, tmp_path: Path, syntax: str
) -> None:
    sent = encoded_file(tmp_path, syntax)
    option = SYNTAXES[syntax][1]
    answer = dcmtk("storescu", "-v", "-R", option, *TO_NODE, *node.address, sent)
    assert "Received Store Response (Success)" in answer
    assert_kept_as_sent(node, sent, syntax)


@pytest.mark.parametrize("syntax", [uid for uid in SYNTAXES if uid != ImplicitVRLittleEndian])
def test_dcmsend_stores_every_transfer_syntax_byte_for_byte(
    node: RunningReceiver, tmp_path: Path, syntax: str
) -> None:
    """It converts Implicit to Explicit VR by itself where it may, as it proposes both."""
    sent = encoded_file(tmp_path, syntax)
    answer = dcmtk("dcmsend", "-v", "--decompress-never", *TO_NODE, *node.address, sent)
    assert "Received C-STORE Response (Success)" in answer
    assert_kept_as_sent(node, sent, syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_our_own_sender_stores_every_transfer_syntax_byte_for_byte(
    node: RunningReceiver, tmp_path: Path, syntax: str
) -> None:
    sent = encoded_file(tmp_path, syntax)
    [result] = send_files([sent], peer_of(node), calling_ae_title="MODALITY")
    assert (result.status, result.error) == (0, "")
    assert_kept_as_sent(node, sent, syntax)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, "1.2.840.10008.1.2.1.99"])
def test_what_may_unpack_to_gigabytes_or_is_retired_is_not_negotiated(
    node: RunningReceiver, syntax: str
) -> None:
    ae = AE("MODALITY")
    ae.add_requested_context(hand_dataset().SOPClassUID, syntax)
    association = ae.associate("127.0.0.1", node.receiver.bound_port, ae_title="BONEAGE")
    assert not association.is_established
    assert [context.abstract_syntax for context in association.rejected_contexts]


def test_a_sender_that_names_several_syntaxes_gets_the_first_it_named(
    node: RunningReceiver,
) -> None:
    ae = AE("MODALITY")
    wanted = [JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    ae.add_requested_context(hand_dataset().SOPClassUID, wanted)
    association = ae.associate("127.0.0.1", node.receiver.bound_port, ae_title="BONEAGE")
    [accepted] = association.accepted_contexts
    association.release()
    assert accepted.transfer_syntax == [JPEG2000Lossless]


STUDY = (
    CTImageStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    BasicTextSRStorage,
    SecondaryCaptureImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)


def test_every_object_of_a_whole_study_is_answered_with_success(
    node: RunningReceiver, tmp_path: Path
) -> None:
    study = generate_uid()
    for number, sop_class in enumerate(STUDY):
        dataset = hand_dataset(SOPClassUID=sop_class, StudyInstanceUID=study)
        write_file(tmp_path / f"{number}.dcm", dataset)
    files = sorted(tmp_path.glob("*.dcm"))
    answer = dcmtk("dcmsend", "-v", *TO_NODE, *node.address, *files)
    assert answer.count("Received C-STORE Response (Success)") == len(STUDY)
    assert {instance.sop_class_uid for instance in node.instances} == set(STUDY)


def test_sending_again_changes_nothing_and_other_content_is_kept_as_a_conflict(
    node: RunningReceiver, tmp_path: Path
) -> None:
    dataset = hand_dataset()
    first = write_file(tmp_path / "first.dcm", dataset)
    dataset.StudyDescription = "changed"
    other = write_file(tmp_path / "other.dcm", dataset)
    for path in (first, first, other):
        [result] = send_files([path], peer_of(node), calling_ae_title="MODALITY")
        assert result.status == 0
    assert node.stored[0] == node.stored[1] != node.stored[2]
    assert node.ledger.record_instance(node.instances[1])[1] is Receipt.DUPLICATE


def send_raw(node: RunningReceiver, path: Path) -> int | None:
    """Status of the answer to a file that is sent as it is, None when the answer is an abort."""
    association = associate(node)
    status: int | None = association.send_c_store(path).get("Status")
    association.release()
    return status


def data_set(folder: Path, **values: Any) -> bytes:
    return data_set_bytes(write_file(folder / "source.dcm", hand_dataset(**values)))


def test_a_data_set_with_another_instance_uid_is_a_mismatch(
    node: RunningReceiver, tmp_path: Path
) -> None:
    content = data_set(tmp_path, SOPInstanceUID="1.2.3.5")
    assert send_raw(node, raw_file(tmp_path / "raw.dcm", content)) == 0xA900


def test_a_data_set_of_another_class_is_a_mismatch(node: RunningReceiver, tmp_path: Path) -> None:
    content = data_set(tmp_path, SOPInstanceUID="1.2.3.4", SOPClassUID=CTImageStorage)
    assert send_raw(node, raw_file(tmp_path / "raw.dcm", content)) == 0xA900


@pytest.mark.parametrize("uid", ["1.2.3.", "1..2", "1.2.x", "../../etc/passwd", "1.2.3\n4"])
def test_an_instance_uid_that_is_no_uid_is_never_stored(
    node: RunningReceiver, tmp_path: Path, uid: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = data_set(tmp_path, SOPInstanceUID=uid)
        path = raw_file(tmp_path / "raw.dcm", content, sop_instance_uid=uid)
    assert send_raw(node, path) == 0xA900
    wait_until(lambda: node.incoming == [])
    assert node.stored == []


def test_leading_zeros_of_old_devices_are_accepted(node: RunningReceiver, tmp_path: Path) -> None:
    uid = "1.2.840.01.0002"
    content = data_set(tmp_path, SOPInstanceUID=uid)
    path = raw_file(tmp_path / "raw.dcm", content, sop_instance_uid=uid)
    assert send_raw(node, path) == 0x0000


@pytest.mark.parametrize(
    "content", [b"%PDF-1.7 " * 100, b"\xff" * 500, b"\x08\x00\x16\x00UI\xff\xff"]
)
def test_garbage_cannot_be_understood(
    node: RunningReceiver, tmp_path: Path, content: bytes
) -> None:
    assert send_raw(node, raw_file(tmp_path / "raw.dcm", content)) == 0xC000
    wait_until(lambda: node.incoming == [])
    assert node.stored == []


def test_good_objects_follow_bad_ones_on_the_same_association(
    node: RunningReceiver, tmp_path: Path
) -> None:
    bad, good = raw_file(tmp_path / "bad.dcm", b"?" * 100), hand_file(tmp_path)
    association = associate(node)
    statuses = [association.send_c_store(path).Status for path in (bad, good, bad, good)]
    association.release()
    assert statuses == [0xC000, 0x0000, 0xC000, 0x0000]


def test_a_disk_that_breaks_is_out_of_resources_and_then_rejects_before_any_data(
    node: RunningReceiver, tmp_path: Path
) -> None:
    objects = node.spool.incoming.parent / "objects"
    path = hand_file(tmp_path)
    association = associate(node)
    objects.rename(objects.with_name("lost"))
    assert association.send_c_store(path).Status == 0xA700
    assert "Temporary Congestion" in dcmtk("echoscu", *TO_NODE, *node.address)
    objects.with_name("lost").rename(objects)
    assert association.send_c_store(path).Status == 0x0000
    association.release()
    assert len(node.stored) == 1


def test_a_ledger_that_cannot_commit_is_out_of_resources(
    node: RunningReceiver, tmp_path: Path
) -> None:
    association = associate(node)
    association.dimse_timeout = 60
    with sqlite3.connect(node.ledger_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        status = association.send_c_store(hand_file(tmp_path)).get("Status")
        other.rollback()
    assert status == 0xA700
    assert association.send_c_store(hand_file(tmp_path)).get("Status") == 0x0000
    association.release()


def test_an_aborted_association_leaves_no_temporary_file(
    node: RunningReceiver, tmp_path: Path
) -> None:
    files = [hand_file(tmp_path, f"{number}.dcm") for number in range(3)]
    dcmtk("storescu", "--abort", *TO_NODE, *node.address, *files)
    wait_until(lambda: node.receiver.open_associations == 0)
    assert node.incoming == []
    assert len(node.stored) == 3


@pytest.mark.parametrize("after_bytes", [5_000, 300_000, 1_000_000])
def test_a_connection_cut_within_an_object_leaves_no_temporary_file(
    node: RunningReceiver, tmp_path: Path, after_bytes: int
) -> None:
    large = hand_file(tmp_path, side_pixels=1000)
    with cutting_proxy(node.receiver.bound_port, after_bytes=after_bytes) as port:
        answer = dcmtk("storescu", *TO_NODE, "127.0.0.1", port, large)
    assert not answer.startswith("exit 0")
    wait_until(lambda: node.receiver.open_associations == 0 and node.incoming == [])
    assert node.stored == []
