"""Peers that stall, flood or lie below the DICOM messages: they are cut, and nothing is left
behind."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from dicom_node.scp.guard import Cut
from dicom_node.settings import ReceiveSettings, Settings
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.pdus import association_request, p_data, store_command
from tests.integration.conftest import MAX_PDU_KB
from tests.integration.peers import RunningReceiver, dcmtk, running_receiver, wait_until
from tests.peers.raw import associated, connect, flood, read_pdu

TO_NODE = ("-aec", "BONEAGE")
MAX_PDU = MAX_PDU_KB * 1024
WHERE = pytest.mark.parametrize("where", ["before", "after", "within"])
"""An association, or a data set."""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def begun(node: RunningReceiver, where: str) -> tuple[socket.socket, bytes]:
    """A connection that has come so far, and a PDU that may come next."""
    if where == "before":
        return connect(node), association_request()
    connection, within = associated(node), where == "within"
    if within:
        connection.sendall(p_data(store_command(), command=True, last=True))
        connection.sendall(p_data(b"x" * 1000, command=False, last=False))
    return connection, p_data(b"x" * 1000, command=not within, last=False)


@WHERE
def test_a_pdu_that_drips_is_cut(impatient: RunningReceiver, cut: list[Cut], where: str) -> None:
    connection, pdu = begun(impatient, where)
    since = time.monotonic()
    with connection, contextlib.suppress(OSError):
        for byte in pdu:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            if cut:
                break
    assert time.monotonic() - since < 8
    assert cut == [Cut.TOO_SLOW]


@WHERE
def test_half_a_pdu_and_then_silence_is_cut_with_an_abort(
    impatient: RunningReceiver, cut: list[Cut], where: str
) -> None:
    connection, pdu = begun(impatient, where)
    with connection:
        connection.sendall(pdu[:40])
        assert read_pdu(connection)[0] == 0x07
    assert cut == [Cut.TOO_SLOW]


@pytest.mark.parametrize(
    ("where", "kind", "length"),
    [
        ("before", 0x01, 0xFFFFFFFF),
        ("before", 0x01, 300 * 1024),
        ("after", 0x04, 0xFFFFFFFF),
        ("after", 0x04, 100 * 1024 * 1024),
        ("after", 0x05, 1_000_000),
        ("within", 0x04, 0xFFFFFFFF),
        ("within", 0x07, 1_000_000),
    ],
)
def test_a_pdu_larger_than_agreed_is_cut_before_it_is_read(
    impatient: RunningReceiver, cut: list[Cut], where: str, kind: int, length: int
) -> None:
    connection, _ = begun(impatient, where)
    before = resident_bytes()
    with connection:
        connection.sendall(struct.pack(">BxL", kind, length))
        assert read_pdu(connection)[0] == 0x07
        flood(connection, bytes(65536), seconds=1)
    assert resident_bytes() - before < 8_000_000
    assert cut == [Cut.PDU_TOO_LARGE]


def test_an_endless_data_set_is_cut_and_its_file_removed(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    with associated(impatient) as connection:
        connection.sendall(p_data(store_command(), command=True, last=True))
        sent = flood(connection, p_data(bytes(MAX_PDU - 6), command=False, last=False))
    assert sent < 40_000_000
    assert cut == [Cut.MESSAGE_TOO_LARGE]


def test_an_endless_command_set_is_cut(impatient: RunningReceiver, cut: list[Cut]) -> None:
    before = resident_bytes()
    with associated(impatient) as connection:
        flood(connection, p_data(bytes(8000), command=True, last=False))
    assert cut == [Cut.COMMAND_TOO_LARGE]
    assert resident_bytes() - before < 8_000_000


def test_an_object_that_is_somewhat_too_large_is_refused_with_a_status(
    tmp_path: Path, cut: list[Cut], fast_path: bool
) -> None:
    path = write_file(tmp_path / "large.dcm", hand_dataset(PixelData=bytes(1_500_000)))
    small = Settings(receive=ReceiveSettings(max_object_mb=1, fast_path=fast_path))
    with running_receiver(tmp_path / "node", settings=small) as node:
        answer = dcmtk("storescu", "-v", *TO_NODE, *node.address, path)
    assert "Refused: OutOfResources" in answer
    assert cut == []


def test_what_a_peer_sends_ahead_waits_with_the_peer(
    impatient: RunningReceiver, cut: list[Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first object is held in the handler; the others may not pile up in the impatient."""
    held = threading.Event()
    reception = impatient.receiver._reception
    keep = reception._received

    def slow(event: object) -> object:
        held.wait(20)
        return keep(event)  # type: ignore[arg-type]

    monkeypatch.setattr(reception, "_received", slow)
    one = p_data(store_command(), command=True, last=True)
    one += b"".join(p_data(bytes(16_000), command=False, last=n == 30) for n in range(31))
    with associated(impatient) as connection:
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            for _ in range(60):
                connection.sendall(one)
                sent += 1
        received = sum(path.stat().st_size for path in impatient.incoming)
        assert sent < 60
        assert received <= 4 * 500_000
        held.set()


def test_commands_that_begin_one_object_after_another_take_no_descriptors(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    """One PDU may hold as many last fragments of a command as fit, each opening a file."""
    last = struct.pack(">L", 2) + bytes([1, 0b11])
    with associated(impatient) as connection:
        connection.sendall(p_data(store_command(), command=True, last=True))
        many = last * 1500
        connection.sendall(struct.pack(">BxL", 0x04, len(many)) + many)
        assert read_pdu(connection)[0] == 0x07
    assert cut == [Cut.MALFORMED_MESSAGE]
    wait_until(lambda: impatient.incoming == [])


def test_a_request_that_would_never_be_handled_is_cut(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    """Without a Message ID pynetdicom drops a C-STORE-RQ, but not its file."""
    command = store_command()
    at = command.index(struct.pack("<HHL", 0, 0x0110, 2))
    without = struct.pack("<HHLL", 0, 0, 4, len(command) - 12 - 10) + command[12:at]
    without += command[at + 10 :]
    with associated(impatient) as connection, contextlib.suppress(OSError):
        for _ in range(50):
            connection.sendall(p_data(without, command=True, last=True))
            connection.sendall(p_data(b"x" * 100, command=False, last=True))
        assert read_pdu(connection)[0] in {0x07, 0}
    assert cut[:1] == [Cut.MALFORMED_MESSAGE]
    wait_until(lambda: impatient.incoming == [])
