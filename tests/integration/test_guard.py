"""Peers that stall, flood or lie below the DICOM messages: they are cut, nothing is left behind,
and honest ones go on."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from dicom_node import metrics
from dicom_node.scp import guard
from dicom_node.scp.guard import Cut, WaitingRoom
from dicom_node.settings import ReceiveSettings, Settings
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import (
    RunningReceiver,
    association_rejection,
    dcmtk,
    file_system,
    running_receiver,
    wait_until,
)

TO_NODE = ("-aec", "BONEAGE")
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
MAX_PDU = 16 * 1024


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[Cut]:
    """Why connections were cut."""
    reasons: list[Cut] = []
    monkeypatch.setattr(metrics, "connection_cut", reasons.append)
    monkeypatch.setattr(guard, "_told", {})
    return reasons


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningReceiver]:
    """A receiver with small limits and little patience."""
    monkeypatch.setattr("dicom_node.scp.server._ACSE_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr("dicom_node.scp.server._PDU_SECONDS", 2.0)
    monkeypatch.setattr(guard, "_LOOK_SECONDS", 0.5)
    receive = ReceiveSettings(max_pdu_kb=16, max_object_mb=1)
    with running_receiver(tmp_path / "node", settings=Settings(receive=receive)) as running:
        yield running
        wait_until(lambda: running.receiver.open_associations == 0)
        wait_until(lambda: running.incoming == [])


def connect(node: RunningReceiver) -> socket.socket:
    return socket.create_connection(node.endpoint, timeout=20)


def request() -> bytes:
    """An A-ASSOCIATE-RQ for CR images (PS3.8 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "RAW", "BONEAGE"
    context = build_context(CR_IMAGE, ExplicitVRLittleEndian)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAX_PDU
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def associated(node: RunningReceiver) -> socket.socket:
    """A connection with an association."""
    connection = connect(node)
    connection.sendall(request())
    assert read_pdu(connection)[0] == 0x02
    return connection


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and content of the next PDU; type 0 at the end of the connection."""
    header = read(connection, 6)
    if len(header) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxL", header)
    return kind, read(connection, length)


def read(connection: socket.socket, count: int) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while len(received) < count and (more := connection.recv(count - len(received))):
            received += more
    return received


def p_data(fragment: bytes, *, command: bool, last: bool) -> bytes:
    """A P-DATA-TF with one fragment (PS3.8 9.3.5, E.2)."""
    value = bytes([1, command | last << 1]) + fragment
    item = struct.pack(">L", len(value)) + value
    return struct.pack(">BxL", 0x04, len(item)) + item


def store_command(uid: str = "1.2.3.4") -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1)."""
    elements = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, CR_IMAGE.encode() + b"\0"),
            (0x0100, b"\x01\x00"),
            (0x0110, b"\x01\x00"),
            (0x0700, b"\x00\x00"),
            (0x0800, b"\x01\x00"),
            (0x1000, uid.encode() + b"\0" * (len(uid) % 2)),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def flood(connection: socket.socket, pdu: bytes, *, seconds: float = 20.0) -> int:
    """Send the same PDU until the node has had enough; bytes that went away."""
    sent, deadline = 0, time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            sent += connection.send(pdu)
    return sent


def echo(node: RunningReceiver) -> str:
    return dcmtk("echoscu", "-v", *TO_NODE, *node.address)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def receiver_threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PROXY TCP4 "])
def test_what_is_no_association_request_is_cut_at_once(
    node: RunningReceiver, cut: list[Cut], first: bytes
) -> None:
    with connect(node) as connection:
        connection.sendall(first)
        assert read_pdu(connection) == (0, b"")
    assert cut == [Cut.NOT_DICOM]
    assert "Success" in echo(node)


def test_port_checks_take_no_association(node: RunningReceiver, cut: list[Cut]) -> None:
    for _ in range(50):
        connect(node).close()
    assert "Success" in echo(node)
    assert cut == []


def test_a_silent_connection_ends_and_keeps_nobody_out(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    silent = [connect(node) for _ in range(30)]
    begun = time.monotonic()
    assert "Success" in echo(node)
    assert time.monotonic() - begun < 2
    for connection in silent:
        assert read(connection, 100) in {association_rejection(2, 3, 2), b""}
        connection.close()
    assert set(cut) == {Cut.NO_ASSOCIATION}


def test_a_flood_of_connections_costs_few_threads_and_another_peer_is_served(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    before = receiver_threads()
    with ExitStack() as open_connections:
        for _ in range(500):
            open_connections.enter_context(connect(node))
        assert receiver_threads() - before <= 12
        source = socket.create_connection(
            node.endpoint, timeout=10, source_address=("127.0.0.2", 0)
        )
        source.sendall(request())
        assert read_pdu(source)[0] == 0x02
        source.close()
    wait_until(lambda: receiver_threads() <= before)
    assert Cut.NO_ASSOCIATION in cut


def test_connections_that_all_speak_are_answered_busy(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    """A room full of half requests: the next one is told to come back, not left in silence."""
    half = [connect(node) for _ in range(8)]
    for connection in half:
        connection.sendall(request()[:20])
    time.sleep(0.3)
    with connect(node) as late:
        late.sendall(request())
        assert read_pdu(late) == (0x03, bytes([0, 2, 3, 2]))  # transient, local limit exceeded
    for connection in half:
        connection.close()
    wait_until(lambda: "Success" in echo(node))
    assert Cut.TOO_MANY_CONNECTIONS in cut


@pytest.mark.parametrize("established", [False, True], ids=["before", "after"])
def test_a_pdu_that_drips_is_cut(node: RunningReceiver, cut: list[Cut], established: bool) -> None:
    connection = associated(node) if established else connect(node)
    pdu = p_data(b"x" * 1000, command=True, last=False) if established else request()
    begun = time.monotonic()
    with connection, contextlib.suppress(OSError):
        for byte in pdu:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            if cut:
                break
    assert time.monotonic() - begun < 8
    assert cut == [Cut.TOO_SLOW]


@pytest.mark.parametrize("established", [False, True], ids=["before", "after"])
def test_half_a_pdu_and_then_silence_is_cut_with_an_abort(
    node: RunningReceiver, cut: list[Cut], established: bool
) -> None:
    connection = associated(node) if established else connect(node)
    pdu = p_data(b"x" * 1000, command=True, last=False) if established else request()
    with connection:
        connection.sendall(pdu[:40])
        assert read_pdu(connection)[0] == 0x07
    assert cut == [Cut.TOO_SLOW]


@pytest.mark.parametrize(
    ("established", "kind", "length"),
    [
        (False, 0x01, 0xFFFFFFFF),
        (False, 0x01, 300 * 1024),
        (True, 0x04, 0xFFFFFFFF),
        (True, 0x04, 100 * 1024 * 1024),
        (True, 0x05, 1_000_000),
    ],
)
def test_a_pdu_larger_than_agreed_is_cut_before_it_is_read(
    node: RunningReceiver, cut: list[Cut], established: bool, kind: int, length: int
) -> None:
    connection = associated(node) if established else connect(node)
    before = resident_bytes()
    with connection:
        connection.sendall(struct.pack(">BxL", kind, length))
        assert read_pdu(connection)[0] == 0x07
        flood(connection, bytes(65536), seconds=1)
    assert resident_bytes() - before < 8_000_000
    assert cut == [Cut.PDU_TOO_LARGE]


def test_an_endless_data_set_is_cut_and_its_file_removed(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    with associated(node) as connection:
        connection.sendall(p_data(store_command(), command=True, last=True))
        sent = flood(connection, p_data(bytes(MAX_PDU - 6), command=False, last=False))
    assert sent < 40_000_000
    assert cut == [Cut.MESSAGE_TOO_LARGE]


def test_an_endless_command_set_is_cut(node: RunningReceiver, cut: list[Cut]) -> None:
    before = resident_bytes()
    with associated(node) as connection:
        flood(connection, p_data(bytes(8000), command=True, last=False))
    assert cut == [Cut.COMMAND_TOO_LARGE]
    assert resident_bytes() - before < 8_000_000


def test_an_object_that_is_somewhat_too_large_is_refused_with_a_status(
    tmp_path: Path, cut: list[Cut]
) -> None:
    path = write_file(tmp_path / "large.dcm", hand_dataset(PixelData=bytes(1_500_000)))
    small = Settings(receive=ReceiveSettings(max_object_mb=1))
    with running_receiver(tmp_path / "node", settings=small) as node:
        answer = dcmtk("storescu", "-v", *TO_NODE, *node.address, path)
    assert "Refused: OutOfResources" in answer
    assert cut == []


def test_what_a_peer_sends_ahead_waits_with_the_peer(
    node: RunningReceiver, cut: list[Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first object is held in the handler; the others may not pile up in the node."""
    held = threading.Event()
    reception = node.receiver._reception
    keep = reception._received

    def slow(event: object) -> object:
        held.wait(20)
        return keep(event)  # type: ignore[arg-type]

    monkeypatch.setattr(reception, "_received", slow)
    one = p_data(store_command(), command=True, last=True)
    one += b"".join(p_data(bytes(16_000), command=False, last=n == 30) for n in range(31))
    with associated(node) as connection:
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            for _ in range(60):
                connection.sendall(one)
                sent += 1
        received = sum(path.stat().st_size for path in node.incoming)
        assert sent < 60
        assert received <= 4 * 500_000
        held.set()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with file_system(tmp_path / "disk", "size=4m") as folder:
        yield folder


def test_a_disk_that_fills_up_within_an_object_is_answered_and_recovers(
    small_disk: Path, tmp_path: Path
) -> None:
    """By the status that tells the sender to come back; the association goes on."""
    large = write_file(tmp_path / "large.dcm", hand_dataset(PixelData=bytes(6_000_000)))
    small = write_file(tmp_path / "small.dcm", hand_dataset(SOPInstanceUID="1.2.3.4.5"))
    with running_receiver(small_disk / "node") as node:
        ae = AE("RAW")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate(*node.endpoint, ae_title="BONEAGE")
        assert association.send_c_store(large).Status == 0xA700
        wait_until(lambda: node.incoming == [])
        assert association.send_c_store(small).Status == 0x0000
        association.release()
        assert [instance.sop_instance_uid for instance in node.instances] == ["1.2.3.4.5"]


def test_a_disk_that_is_nearly_full_is_answered_on_open_associations_and_recovers(
    small_disk: Path, tmp_path: Path
) -> None:
    """The rest of the disk is for the work that is queued."""
    small = Settings(receive=ReceiveSettings(high_water_percent=60))
    files = [write_file(tmp_path / f"{number}.dcm", hand_dataset()) for number in range(3)]
    with running_receiver(small_disk / "node", settings=small) as node:
        ae = AE("RAW")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate(*node.endpoint, ae_title="BONEAGE")
        assert association.send_c_store(files[0]).Status == 0x0000
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(3_500_000))
        assert association.send_c_store(files[1]).Status == 0xA700
        assert "Temporary Congestion" in echo(node)
        ballast.unlink()
        assert association.send_c_store(files[2]).Status == 0x0000
        association.release()
        assert "Success" in echo(node)
        assert len(node.instances) == 2


def test_commands_that_begin_one_object_after_another_take_no_descriptors(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    """One PDU may hold as many last fragments of a command as fit, each opening a file."""
    last = struct.pack(">L", 2) + bytes([1, 0b11])
    with associated(node) as connection:
        connection.sendall(p_data(store_command(), command=True, last=True))
        many = last * 1500
        connection.sendall(struct.pack(">BxL", 0x04, len(many)) + many)
        assert read_pdu(connection)[0] == 0x07
    assert cut == [Cut.MALFORMED_MESSAGE]
    wait_until(lambda: node.incoming == [])


def test_a_request_that_would_never_be_handled_is_cut(
    node: RunningReceiver, cut: list[Cut]
) -> None:
    """Without a Message ID pynetdicom drops a C-STORE-RQ, but not its file."""
    command = store_command()
    at = command.index(struct.pack("<HHL", 0, 0x0110, 2))
    without = struct.pack("<HHLL", 0, 0, 4, len(command) - 12 - 10) + command[12:at]
    without += command[at + 10 :]
    with associated(node) as connection, contextlib.suppress(OSError):
        for _ in range(50):
            connection.sendall(p_data(without, command=True, last=True))
            connection.sendall(p_data(b"x" * 100, command=False, last=True))
        assert read_pdu(connection)[0] in {0x07, 0}
    assert cut[:1] == [Cut.MALFORMED_MESSAGE]
    wait_until(lambda: node.incoming == [])


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


def test_places_are_free_as_soon_as_their_peers_have_gone(node: RunningReceiver) -> None:
    for sent in (b"\x01", request()[:50], struct.pack(">BxL", 0x01, 68) + bytes(68)):
        connection = connect(node)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: not node.receiver._listeners[0].waiting_room._waiting, seconds=1.9)


def abort() -> bytes:
    return struct.pack(">BxL", 0x07, 4) + bytes(4)


def release() -> bytes:
    return struct.pack(">BxL", 0x05, 4) + bytes(4)


def with_context(pdu: bytes, context_id: int) -> bytes:
    """A P-DATA-TF with another presentation context id."""
    return pdu[:10] + bytes([context_id]) + pdu[11:]


OUT_OF_ORDER = {
    "data before an association": [p_data(b"x", command=False, last=True)],
    "release before an association": [release()],
    "a second request": [request(), request()],
    "data of no command": [request(), p_data(b"x" * 100, command=False, last=True)],
    "an unknown context": [
        request(),
        with_context(p_data(store_command(), command=True, last=True), 99),
        with_context(p_data(b"x" * 100, command=False, last=True), 99),
    ],
    "release within an object": [
        request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        release(),
    ],
    "abort within an object": [
        request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        abort(),
    ],
    "a command within an object": [
        request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        p_data(store_command("1.2.3.5"), command=True, last=True),
        p_data(b"x" * 100, command=False, last=True),
    ],
    "a command that is none": [request(), p_data(b"x" * 100, command=True, last=True)],
    "an empty command": [request(), p_data(b"", command=True, last=True)],
    "a fragment without a header": [request(), struct.pack(">BxLL", 0x04, 4, 0)],
    "a fragment longer than its PDU": [request(), struct.pack(">BxLL", 0x04, 6, 9999) + b"xx"],
    "an empty PDU": [request(), struct.pack(">BxL", 0x04, 0)],
    "a request of nothing": [struct.pack(">BxL", 0x01, 0)],
    "a request cut short": [struct.pack(">BxL", 0x01, 68) + bytes(68)],
    "an unknown PDU": [request(), struct.pack(">BxL", 0x55, 4) + bytes(4)],
}


@pytest.mark.parametrize("pdus", OUT_OF_ORDER.values(), ids=list(OUT_OF_ORDER))
def test_pdus_out_of_order_end_the_association_and_nothing_else(
    node: RunningReceiver, pdus: list[bytes]
) -> None:
    """No half object is acknowledged, no file, thread or place is left."""
    before = receiver_threads()
    with connect(node) as connection, contextlib.suppress(OSError):
        for pdu in pdus:
            connection.sendall(pdu)
            if pdu == request():
                read_pdu(connection)
        connection.shutdown(socket.SHUT_WR)
        while read_pdu(connection)[0]:
            pass
    assert node.stored == []
    wait_until(lambda: receiver_threads() <= before and node.incoming == [], seconds=30)
    assert "Success" in echo(node)


SESSION = request() + p_data(store_command(), command=True, last=True)
SESSION += p_data(b"x" * 500, command=False, last=True) + release()


# pynetdicom's reader ends with an error where data comes before its own answer was sent
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SESSION) - 1), st.integers(0, 255)), min_size=1, max_size=12
    ),
    cut_at=st.integers(1, len(SESSION)),
)
def test_mutated_sessions_leave_a_node_that_serves(
    node: RunningReceiver, changes: list[tuple[int, int]], cut_at: int
) -> None:
    mutated = bytearray(SESSION)
    for position, value in changes:
        mutated[position] = value
    with connect(node) as connection, contextlib.suppress(OSError):
        connection.sendall(mutated[:cut_at])
        connection.shutdown(socket.SHUT_WR)
        while read_pdu(connection)[0]:
            pass
    wait_until(lambda: node.receiver.open_associations == 0, seconds=30)
    wait_until(lambda: node.incoming == [])
    assert node.receiver._listeners[0]._thread is not None
    assert node.receiver._listeners[0]._thread.is_alive()


def test_a_peer_that_is_rejected_again_and_again_is_named_once(
    node: RunningReceiver, cut: list[Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, object]] = []
    monkeypatch.setattr(
        "dicom_node.scp.handlers.log",
        lambda event, **fields: said.append((event, fields["reason"])),
    )
    for _ in range(3):
        for called in ("WRONG", "OTHER"):
            dcmtk("echoscu", "-aec", called, *node.address)
        dcmtk("echoscu", "-aet", "BONEAGE", *TO_NODE, *node.address)
    rejected = "association_rejected"
    assert said == [(rejected, "wrong_called_ae_title"), (rejected, "loop")]
    assert cut == []
