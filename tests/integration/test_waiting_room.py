"""Connections without an association: they cost little and keep nobody out."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import ExitStack

import pytest

from dicom_node.scp.guard import Cut, WaitingRoom
from tests.builders.pdus import association_request
from tests.integration.peers import RunningReceiver, association_rejection, dcmtk, wait_until
from tests.peers.raw import connect, read, read_pdu

TO_NODE = ("-aec", "BONEAGE")


@pytest.fixture
def fast_path() -> bool:
    """It begins with an association."""
    return True


def echo(node: RunningReceiver) -> str:
    return dcmtk("echoscu", "-v", *TO_NODE, *node.address)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PROXY TCP4 "])
def test_what_is_no_association_request_is_cut_at_once(
    impatient: RunningReceiver, cut: list[Cut], first: bytes
) -> None:
    with connect(impatient) as connection:
        connection.sendall(first)
        assert read_pdu(connection) == (0, b"")
    assert cut == [Cut.NOT_DICOM]
    assert "Success" in echo(impatient)


def test_port_checks_take_no_association(impatient: RunningReceiver, cut: list[Cut]) -> None:
    for _ in range(50):
        connect(impatient).close()
    assert "Success" in echo(impatient)
    assert cut == []


def test_a_silent_connection_ends_and_keeps_nobody_out(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    silent = [connect(impatient) for _ in range(30)]
    begun = time.monotonic()
    assert "Success" in echo(impatient)
    assert time.monotonic() - begun < 2
    for connection in silent:
        assert read(connection, 100) in {association_rejection(2, 3, 2), b""}
        connection.close()
    assert set(cut) == {Cut.NO_ASSOCIATION}


def test_a_flood_of_connections_costs_few_threads_and_another_peer_is_served(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    before = threading.active_count()
    with ExitStack() as open_connections:
        for _ in range(500):
            open_connections.enter_context(connect(impatient))
        assert threading.active_count() - before <= 12
        source = socket.create_connection(
            impatient.endpoint, timeout=10, source_address=("127.0.0.2", 0)
        )
        source.sendall(association_request())
        assert read_pdu(source)[0] == 0x02
        source.close()
    wait_until(lambda: threading.active_count() <= before)
    assert Cut.NO_ASSOCIATION in cut


def test_connections_that_all_speak_are_answered_busy(
    impatient: RunningReceiver, cut: list[Cut]
) -> None:
    """A room full of half requests: the next one is told to come back, not left in silence."""
    half = [connect(impatient) for _ in range(8)]
    for connection in half:
        connection.sendall(association_request()[:20])
    time.sleep(0.3)
    with connect(impatient) as late:
        late.sendall(association_request())
        assert read_pdu(late) == (0x03, bytes([0, 2, 3, 2]))  # transient, local limit exceeded
    for connection in half:
        connection.close()
    wait_until(lambda: "Success" in echo(impatient))
    assert Cut.TOO_MANY_CONNECTIONS in cut


def test_who_only_connects_keeps_nobody_out() -> None:
    """Also where those with most connections speak and the silent ones come from everywhere."""
    pairs = [socket.socketpair() for _ in range(41)]
    room = WaitingRoom(places=40, places_of_peer=8)
    try:
        for number, (mine, _) in enumerate(pairs[:40]):
            assert room.enter(mine, "speaks" if number < 2 else f"silent {number}")
        for mine, _ in pairs[:2]:
            room.speaks(mine)
        assert room.enter(pairs[40][0], "honest")
        assert pairs[2][1].recv(1) == b"", "the oldest silent one was turned out"
        for mine, _ in pairs[3:]:
            room.speaks(mine)
        assert not room.enter(pairs[2][0], "late")
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_places_are_free_as_soon_as_their_peers_have_gone(impatient: RunningReceiver) -> None:
    for sent in (b"\x01", association_request()[:50], struct.pack(">BxL", 0x01, 68) + bytes(68)):
        connection = connect(impatient)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: not impatient.receiver._listeners[0].waiting_room._waiting, seconds=1.9)


def test_a_peer_that_is_rejected_again_and_again_is_named_once(
    impatient: RunningReceiver, cut: list[Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, object]] = []
    monkeypatch.setattr(
        "dicom_node.scp.handlers.log",
        lambda event, **fields: said.append((event, fields["reason"])),
    )
    for _ in range(3):
        for called in ("WRONG", "OTHER"):
            dcmtk("echoscu", "-aec", called, *impatient.address)
        dcmtk("echoscu", "-aet", "BONEAGE", *TO_NODE, *impatient.address)
    rejected = "association_rejected"
    assert said == [(rejected, "wrong_called_ae_title"), (rejected, "loop")]
    assert cut == []
