"""The node as a client that sends reports, against DCMTK and against peers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.adapters.scu import DestinationAddress, DicomReportSender, Peer, association
from dicom_node.adapters.scu.report_sender import REPORT_CLASSES
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.scp.archive_peer import ArchivePeer
from tests.builders.dicom_files import data_set_bytes
from tests.integration.peers import (
    ABORT,
    association_rejection,
    canned_peer,
    free_port,
    reset,
    reset_connection,
    running_storescp,
    wait_until,
)
from tests.peers.held import own_descriptors
from tests.peers.sender import failure, report, sender_to

pytestmark = pytest.mark.usefixtures("either_way")


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
    with running_storescp(tmp_path / "pacs", "-pm") as port:
        threads, held = threading.active_count(), own_descriptors()
        for _ in range(10):
            sender = sender_to(port)
            assert sender.send("pacs", report()).status == 0x0000
            sender.close()
        gone = sender_to(port)
        assert gone.send("pacs", report()).status == 0x0000
    wait_until(lambda: threading.active_count() <= threads)
    wait_until(lambda: own_descriptors() <= held)


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
