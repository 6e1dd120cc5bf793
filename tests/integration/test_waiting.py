"""An association that the node keeps open waits for the network, unless it is told not to."""

from __future__ import annotations

import threading
import time

import pytest

from dicom_node import waiting
from dicom_node.domain.errors import Transient
from dicom_node.scp.archive_peer import ArchivePeer
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.waiting import WaitingReader
from dicom_node.wiring import Wiring
from tests.integration.peers import no_free_descriptor, wait_until
from tests.peers.sender import report, sender_to


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When readers looked at their connection."""
    times: list[float] = []
    has_data = WaitingReader._has_data

    def counted(reader: WaitingReader) -> bool:
        times.append(time.monotonic())
        return has_data(reader)

    monkeypatch.setattr(WaitingReader, "_has_data", counted)
    return times


def test_an_open_association_is_not_looked_at_while_nothing_happens(
    archive: ArchivePeer, looks: list[float]
) -> None:
    sender = sender_to(archive.bound_port)
    for _ in range(3):
        assert sender.send("pacs", report()).status == 0x0000
    assert looks
    time.sleep(0.2)
    looks.clear()
    time.sleep(1)
    assert len(looks) <= 2
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()
    assert len(archive.arrived) == 4


def test_a_peer_that_goes_is_noticed_at_once(archive: ArchivePeer) -> None:
    sender = sender_to(archive.bound_port)
    assert sender.send("pacs", report()).status == 0x0000
    kept = sender._lines["pacs"]._kept
    [peer] = archive._listener.active_associations
    peer.abort()
    deadline = time.monotonic() + 5
    while kept.current() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kept.current() is None
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()


@pytest.mark.parametrize(
    ("fast_path", "version", "expected"),
    [
        (True, waiting.VERSION, True),
        (False, waiting.VERSION, False),
        (True, "3.0.3", False),
    ],
)
def test_a_destination_can_do_without_and_another_version_does(
    archive: ArchivePeer,
    looks: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fast_path: bool,
    version: str,
    expected: bool,
) -> None:
    monkeypatch.setattr(waiting, "VERSION", version)
    destination = DestinationSettings(
        name="pacs",
        ae_title="PACS",
        host="127.0.0.1",
        port=archive.bound_port,
        fast_path=fast_path,
    )
    sender = Wiring(Settings(destinations=(destination,))).sender
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()
    assert bool(looks) == expected


def test_without_a_free_descriptor_the_destination_is_tried_again(archive: ArchivePeer) -> None:
    sender = sender_to(archive.bound_port, timeout_seconds=5.0)
    threads = threading.active_count()
    with no_free_descriptor(), pytest.raises(Transient, match="Too many open files"):
        sender.send("pacs", report())
    wait_until(lambda: threading.active_count() <= threads)
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()


def test_a_reader_that_dies_ends_its_association_at_once(
    archive: ArchivePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = sender_to(archive.bound_port, timeout_seconds=5.0)
    assert sender.send("pacs", report()).status == 0x0000
    kept = sender._lines["pacs"]._kept.current()
    assert kept is not None
    reader = kept.dul
    assert isinstance(reader, WaitingReader)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    reader.event_queue.put("Evt99")  # its state machine knows no such event
    reader.wake()
    wait_until(lambda: not kept.is_established, seconds=2)
    assert sender.send("pacs", report()).status == 0x0000
    sender.close()
