"""The node as a client that sends reports, against DCMTK and against peers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from dicom_node import waiting
from dicom_node.adapters.scu import (
    DestinationAddress,
    DicomReportSender,
    Peer,
    association,
)
from dicom_node.adapters.scu.report_sender import REPORT_CLASSES
from dicom_node.domain.delivery import (
    SOP_CLASS_NOT_SUPPORTED,
    SOP_CLASSES,
    Answer,
    ReportKind,
    ReportObject,
)
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.scp.archive_peer import ArchivePeer
from sr_templates.capture import build_capture
from sr_templates.content import Device, NotAssessedContent
from sr_templates.encoding import encode_file
from sr_templates.source import read_source
from sr_templates.uids import derived_uid
from tests.builders.dicom_files import data_set_bytes, hand_dataset
from tests.integration.peers import (
    ABORT,
    association_rejection,
    canned_peer,
    free_port,
    reset,
    reset_connection,
    running_storescp,
    taking,
    wait_until,
)

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.fixture(autouse=True)
def either_way(fast_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds for associations that wait and for those that pynetdicom looks at."""
    monkeypatch.setattr(waiting, "is_usable", lambda: fast_path)


def report(
    sop_class_uid: str = COMPREHENSIVE_3D_SR,
    *,
    kind: ReportKind = ReportKind.MEASUREMENTS,
    replaces: str | None = None,
) -> ReportObject:
    dataset = hand_dataset(SOPClassUID=sop_class_uid)
    if replaces is not None:
        dataset.PredecessorDocumentsSequence = [replaced(sop_class_uid, replaces)]
    encoded = BytesIO()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(encoded, enforce_file_format=True)
    return ReportObject(
        kind=kind,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        encoded=encoded.getvalue(),
    )


def replaced(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = sop_class_uid
    instance.ReferencedSOPInstanceUID = sop_instance_uid
    series.SeriesInstanceUID = "2.25.1"
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = "2.25.2"
    study.ReferencedSeriesSequence = [series]
    return study


def sender_to(port: int, *, timeout_seconds: float = 10.0) -> DicomReportSender:
    address = DestinationAddress(
        name="pacs",
        peer=Peer(host="127.0.0.1", port=port, ae_title="PACS"),
        timeout_seconds=timeout_seconds,
    )
    return DicomReportSender([address], calling_ae_title="BONEAGE")


def failure(port: int, *, timeout_seconds: float = 10.0) -> NodeError:
    sender = sender_to(port, timeout_seconds=timeout_seconds)
    with pytest.raises(NodeError) as caught:
        sender.send("pacs", report())
    sender.close()
    return caught.value


@pytest.mark.parametrize("sop_class_uid", REPORT_CLASSES)
def test_storescp_stores_every_class_of_report(tmp_path: Path, sop_class_uid: str) -> None:
    sent = report(sop_class_uid)
    with running_storescp(tmp_path / "pacs", "-pm", "--unique-filenames") as port:
        sender = sender_to(port)
        assert sender.send("pacs", sent).status == 0x0000
        sender.close()
    [stored] = (tmp_path / "pacs").iterdir()
    (tmp_path / "sent.dcm").write_bytes(sent.encoded)
    assert data_set_bytes(stored) == data_set_bytes(tmp_path / "sent.dcm")


def test_a_destination_that_takes_implicit_vr_only_gets_the_same_content(tmp_path: Path) -> None:
    sent = report()
    with running_storescp(tmp_path / "pacs", "-pm", "+xi") as port:
        sender = sender_to(port)
        assert sender.send("pacs", sent).status == 0x0000
        sender.close()
    [path] = (tmp_path / "pacs").iterdir()
    stored = pydicom.dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert stored == pydicom.dcmread(BytesIO(sent.encoded))


def test_many_reports_go_over_one_association(archive: ArchivePeer) -> None:
    opened: list[object] = []
    sender = sender_to(archive.bound_port)
    for _ in range(5):
        assert sender.send("pacs", report()).status == 0x0000
        opened.append(sender._lines["pacs"]._kept._association)
    sender.close()
    assert len(set(map(id, opened))) == 1
    assert len(archive.arrived) == 5


def test_an_idle_association_is_released_and_the_next_report_opens_another(
    archive: ArchivePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "_IDLE_SECONDS", 0.5)
    monkeypatch.setattr(association, "_MARGIN_SECONDS", 0.1)
    sender = sender_to(archive.bound_port)
    assert sender.send("pacs", report()).status == 0x0000
    first = sender._lines["pacs"]._kept._association
    assert first is not None
    wait_until(lambda: first.is_released)
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()
    assert len(archive.arrived) == 2


def test_threads_and_descriptors_end_with_an_association(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with running_storescp(tmp_path / "pacs", "-pm") as port:
        threads, held = threading.active_count(), descriptors()
        for _ in range(10):
            sender = sender_to(port)
            assert sender.send("pacs", report()).status == 0x0000
            sender.close()
        gone = sender_to(port)
        assert gone.send("pacs", report()).status == 0x0000
    wait_until(lambda: threading.active_count() <= threads)
    wait_until(lambda: descriptors() <= held)


def test_the_same_report_sent_again_is_the_same_object(archive: ArchivePeer) -> None:
    sent, sender = report(), sender_to(archive.bound_port)
    assert [sender.send("pacs", sent).status for _ in range(3)] == [0, 0, 0]
    sender.close()
    assert list(archive.arrived) == [sent.sop_instance_uid]


@pytest.fixture
def resetting_peer() -> Iterator[int]:
    """The port of a peer that accepts every connection and resets it at once."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            reset(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_peer_that_resets_at_any_moment_is_tried_again(resetting_peer: int) -> None:
    for _ in range(200):
        error = failure(resetting_peer)
        assert isinstance(error, Transient), error
        assert error.fault is Fault.DESTINATION_UNAVAILABLE


def test_a_reset_before_the_request_has_a_readable_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(association, "connect", reset_connection)
    error = failure(free_port())
    assert isinstance(error, Transient)
    assert str(error).endswith("no connection: the peer closed it at once")


def test_threads_share_a_destination(archive: ArchivePeer) -> None:
    sender = sender_to(archive.bound_port)
    threads = [
        threading.Thread(target=lambda: [sender.send("pacs", report()) for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.close()
    assert len(archive.arrived) == 20


def test_a_restarted_destination_gets_a_new_association(tmp_path: Path) -> None:
    port = free_port()
    sender = sender_to(port)
    for _ in range(2):
        with running_storescp(tmp_path / "pacs", "-pm", port=port):
            assert sender.send("pacs", report()).status == 0x0000
    sender.close()
    assert len(list((tmp_path / "pacs").iterdir())) == 2


@pytest.mark.parametrize("status", [0xA700, 0x0111, 0xB000, 0xB007, 0xC000, 0xA900, 0x0110, 0x0124])
def test_the_destinations_status_is_returned(tmp_path: Path, status: int) -> None:
    peer = ArchivePeer(tmp_path / "archive", answer=lambda _uid: status)
    peer.start()
    sender = sender_to(peer.bound_port)
    assert sender.send("pacs", report()).status == status
    sender.close()
    peer.stop()


def test_a_destination_that_is_down_is_unavailable() -> None:
    error = failure(free_port())
    assert isinstance(error, Transient)
    assert error.fault is Fault.DESTINATION_UNAVAILABLE
    assert "Connection refused" in str(error)


def test_an_unknown_host_is_unavailable() -> None:
    address = DestinationAddress(
        name="pacs",
        peer=Peer(host="pacs.invalid", port=104, ae_title="PACS"),
        timeout_seconds=5,
    )
    with pytest.raises(Transient) as caught:
        DicomReportSender([address], calling_ae_title="BONEAGE").send("pacs", report())
    assert caught.value.fault is Fault.DESTINATION_UNAVAILABLE


def test_an_unconfigured_destination_is_unknown() -> None:
    with pytest.raises(Permanent) as caught:
        sender_to(1).send("elsewhere", report())
    assert caught.value.fault is Fault.DESTINATION_UNKNOWN


def test_storescp_that_refuses_the_association_refuses_the_destination(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", "--refuse") as port:
        error = failure(port)
    assert isinstance(error, Permanent)
    assert error.fault is Fault.DESTINATION_REFUSED


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ((1, 1, 3), Permanent, "calling AE title not recognised"),
        ((1, 1, 7), Permanent, "called AE title not recognised"),
        ((2, 3, 1), Transient, "temporary congestion"),
        ((2, 3, 2), Transient, "local limit exceeded"),
    ],
)
def test_a_rejection_is_permanent_or_transient_as_the_peer_says(
    code: tuple[int, int, int], kind: type[NodeError], words: str
) -> None:
    with canned_peer(association_rejection(*code)) as port:
        error = failure(port)
    assert isinstance(error, kind)
    assert words in str(error)


@pytest.mark.parametrize("answer", [ABORT, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_peer_that_does_not_speak_dicom_is_unavailable(answer: bytes) -> None:
    with canned_peer(answer) as port:
        error = failure(port, timeout_seconds=2)
    assert isinstance(error, Transient)


def test_a_peer_that_says_nothing_is_unavailable_within_the_timeout() -> None:
    begun = time.monotonic()
    with canned_peer(b"", close=False) as port:
        error = failure(port, timeout_seconds=1)
    assert isinstance(error, Transient)
    assert time.monotonic() - begun < 10


def test_storescp_that_aborts_within_the_store_is_unavailable(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", "-pm", "--abort-after") as port:
        error = failure(port)
    assert isinstance(error, Transient)
    assert "did not answer the C-STORE" in str(error)


def test_storescp_that_is_too_slow_is_unavailable(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", "-pm", "--sleep-during", "30") as port:
        error = failure(port, timeout_seconds=1)
    assert isinstance(error, Transient)


def stored_in(folder: Path) -> Dataset:
    [path] = folder.iterdir()
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    ("kind", "taken", "expected"),
    [
        (ReportKind.MEASUREMENTS, (COMPREHENSIVE_SR, ENHANCED_SR), COMPREHENSIVE_SR),
        (ReportKind.MEASUREMENTS, (ENHANCED_SR, BASIC_TEXT_SR), ENHANCED_SR),
        (ReportKind.NARRATIVE, (BASIC_TEXT_SR,), BASIC_TEXT_SR),
        (ReportKind.NARRATIVE, (COMPREHENSIVE_SR, BASIC_TEXT_SR), COMPREHENSIVE_SR),
    ],
)
def test_storescp_gets_the_first_sop_class_that_it_takes(
    tmp_path: Path, kind: ReportKind, taken: tuple[str, ...], expected: str
) -> None:
    sent = report(SOP_CLASSES[kind][0], kind=kind)
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, *taken)) as port:
        sender = sender_to(port)
        answers = [sender.send("pacs", sent) for _ in range(2)]
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert answers[0] == answers[1]
    assert answers[0] == Answer(
        status=0,
        sent_sop_class_uid=expected,
        sent_sop_instance_uid=derived_uid(sent.sop_instance_uid, expected),
    )
    assert stored.SOPClassUID == stored.file_meta.MediaStorageSOPClassUID == expected
    assert stored.SOPInstanceUID == answers[0].sent_sop_instance_uid


@pytest.mark.parametrize("before", [COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, None])
@pytest.mark.parametrize("now", [COMPREHENSIVE_3D_SR, ENHANCED_SR])
def test_what_a_document_replaces_is_named_as_the_destination_has_it(
    tmp_path: Path, before: str | None, now: str
) -> None:
    delivered = {}
    if before is not None:
        delivered["2.25.77"] = Answer(
            status=0, sent_sop_class_uid=before, sent_sop_instance_uid="2.25.78"
        )
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, now)) as port:
        sender = sender_to(port)
        sender.send("pacs", report(replaces="2.25.77"), delivered)
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert stored.SOPClassUID == now
    [study] = stored.PredecessorDocumentsSequence
    [replaced] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert replaced.ReferencedSOPClassUID == (before or COMPREHENSIVE_3D_SR)
    assert replaced.ReferencedSOPInstanceUID == ("2.25.78" if before else "2.25.77")


def test_an_object_of_no_sop_class_that_storescp_takes_stays_and_others_go(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, BASIC_TEXT_SR)) as port:
        sender = sender_to(port)
        begun = time.monotonic()
        measurements = sender.send("pacs", report())
        narrative = sender.send("pacs", report(ENHANCED_SR, kind=ReportKind.NARRATIVE))
        sender.close()
    assert time.monotonic() - begun < 8, "a second association waited for the first one to end"
    assert measurements.status == SOP_CLASS_NOT_SUPPORTED
    assert measurements.sent_sop_class_uid == COMPREHENSIVE_3D_SR
    assert narrative.status == 0
    assert stored_in(tmp_path / "pacs").SOPClassUID == BASIC_TEXT_SR


def test_storescp_that_takes_no_report_at_all_refuses_the_association(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, CR_IMAGE)) as port:
        error = failure(port)
    assert isinstance(error, Permanent)
    assert error.fault is Fault.DESTINATION_REFUSED


@pytest.mark.parametrize(
    ("options", "syntax"),
    [(("-pm", "+xy"), JPEGBaseline8Bit), (("-pm", "+xi"), ImplicitVRLittleEndian)],
)
def test_a_picture_goes_compressed_where_that_is_taken_and_else_decoded(
    tmp_path: Path, options: tuple[str, ...], syntax: str
) -> None:
    slope = Image.linear_gradient("L").resize((64, 48))
    picture = Image.merge("RGB", (slope, slope.rotate(180), slope.rotate(90)))
    source = read_source(hand_dataset())
    content = NotAssessedContent(
        device=Device(name="n", manufacturer="m", model_name="b", software_version="1"),
        content_sha256="ab" * 32,
        language="en",
        reported_at=datetime(2026, 3, 1, tzinfo=UTC),
        synthetic=False,
        reason="image_blank",
    )
    made = build_capture(source, content, picture)
    sent = replace(
        report(str(made["SOPClassUID"]), kind=ReportKind.CAPTURE),
        encoded=encode_file(made, transfer_syntax=JPEGBaseline8Bit),
        sop_instance_uid=str(made["SOPInstanceUID"]),
    )
    with running_storescp(tmp_path / "pacs", *options) as port:
        sender = sender_to(port)
        assert sender.send("pacs", sent).status == 0
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.SOPInstanceUID == sent.sop_instance_uid
    assert stored.LossyImageCompression == "01"
    assert stored.PhotometricInterpretation == (
        "YBR_FULL_422" if syntax == JPEGBaseline8Bit else "RGB"
    )
    assert np.abs(stored.pixel_array.astype(int) - np.asarray(picture)).mean() < 6
