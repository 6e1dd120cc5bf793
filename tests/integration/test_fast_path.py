"""The fast path stores what was sent, however it was cut into fragments, PDUs and packets; beside
it, pynetdicom's own way stores the same."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node import waiting
from dicom_node.scp.port import listen
from dicom_node.settings import ReceiveSettings, Settings, TlsSettings
from dicom_node.tls import Certificates
from tests.builders.certificates import Authority
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.builders.pdus import (
    RELEASE,
    association_request,
    p_data,
    p_data_of,
    pdv,
    status_in,
    store_command,
)
from tests.integration.conftest import MAX_PDU_KB
from tests.integration.peers import (
    RunningReceiver,
    dcmtk,
    no_free_descriptor,
    running_receiver,
    wait_until,
)
from tests.peers.held import own_descriptors
from tests.peers.raw import associated, read_pdu


@pytest.fixture
def node(tmp_path: Path, fast_path: bool) -> Iterator[RunningReceiver]:
    receive = ReceiveSettings(
        max_pdu_kb=MAX_PDU_KB,
        fast_path=fast_path,
        max_associations=120,
        max_associations_per_peer=120,
    )
    with running_receiver(tmp_path / "node", settings=Settings(receive=receive)) as running:
        yield running


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """40 kB of a hand; its UIDs are replaced by those of the same length."""
    dataset = hand_dataset(side_pixels=140, SOPInstanceUID=uid(0))
    return data_set_bytes(write_file(tmp_path_factory.mktemp("source") / "hand.dcm", dataset))


def uid(number: int) -> str:
    return f"1.2.826.0.1.{10**12 + number}"


_numbers = iter(range(1, 10**6))


def fresh(data_set: bytes) -> tuple[str, bytes]:
    """An object that was not sent yet, and its UID."""
    number = next(_numbers)
    return uid(number), data_set.replace(uid(0).encode(), uid(number).encode())


def cuts(data: st.DataObject, length: int, most: int) -> list[int]:
    places = data.draw(st.lists(st.integers(0, length), max_size=most))
    return [0, *sorted(places), length]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_fragmentation_is_stored_byte_for_byte(
    node: RunningReceiver, data_set: bytes, data: st.DataObject
) -> None:
    """Fragments of any length, none too; any number of them in a PDU, also such of the command;
    reserved bits set; packets that end anywhere."""
    name, content = fresh(data_set)
    with associated(node) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = b"".join(pdus(data, store_command(name), content))
        places = cuts(data, len(session), 6)
        for begin, end in itertools.pairwise(places):
            connection.sendall(session[begin:end])
        assert status_in(read_pdu(connection)[1]) == 0x0000
        connection.sendall(RELEASE)
        read_pdu(connection)
    instance = node.ledger.exam(node.stored[-1]).instance
    assert instance.sop_instance_uid == name
    assert data_set_bytes(node.spool.path(instance.content_sha256)) == content
    node.spool.verify(instance.content_sha256)


def pdus(data: st.DataObject, command: bytes, content: bytes) -> list[bytes]:
    items = [
        *fragments(data, command, command=True, most=3),
        *fragments(data, content, command=False, most=30),
    ]
    made: list[bytes] = []
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=9))
    while items:
        size = sizes[len(made) % len(sizes)]
        while size > 1 and sum(map(len, items[:size])) > MAX_PDU_KB * 1024:
            size -= 1
        made.append(p_data_of(*items[:size]))
        items = items[size:]
    return made


def fragments(data: st.DataObject, content: bytes, *, command: bool, most: int) -> list[bytes]:
    longest = MAX_PDU_KB * 1024 - 6
    places = sorted({*cuts(data, len(content), most), *range(0, len(content), longest)})
    if data.draw(st.booleans()):
        places.append(len(content))  # an empty last one
    bits = data.draw(st.integers(0, 63))
    return [
        pdv(content[begin:end], command=command, last=at == len(places) - 2, reserved_bits=bits)
        for at, (begin, end) in enumerate(itertools.pairwise(places))
    ]


def test_messages_that_share_a_pdu_are_all_answered(node: RunningReceiver, data_set: bytes) -> None:
    """The end of a data set and a whole object in one PDU: PS3.8 does not forbid it."""
    (first, content), (second, other) = fresh(data_set[:6000]), fresh(data_set[:6000])
    shared = p_data_of(
        pdv(content[5000:], command=False, last=True),
        pdv(store_command(second), command=True, last=True),
        pdv(other, command=False, last=True),
    )
    with associated(node) as connection:
        connection.sendall(p_data(store_command(first), command=True, last=True))
        connection.sendall(p_data(content[:5000], command=False, last=False) + shared)
        assert [status_in(read_pdu(connection)[1]) for _ in range(2)] == [0x0000, 0x0000]
    assert [instance.sop_instance_uid for instance in node.instances] == [first, second]
    for instance, sent in zip(node.instances, (content, other), strict=True):
        assert data_set_bytes(node.spool.path(instance.content_sha256)) == sent


def test_pdus_that_come_at_once_are_taken_one_after_the_other(
    node: RunningReceiver, data_set: bytes
) -> None:
    """Three objects and the release in one packet: none waits for the answer before."""
    sent = [fresh(data_set) for _ in range(3)]
    session = b"".join(
        p_data(store_command(name), command=True, last=True)
        + p_data(content[:9000], command=False, last=False)
        + p_data(content[9000:16000], command=False, last=False)
        + p_data(content[16000:30000], command=False, last=False)
        + p_data(content[30000:], command=False, last=True)
        for name, content in sent
    )
    with associated(node) as connection:
        connection.sendall(session)
        answers = [status_in(read_pdu(connection)[1]) for _ in sent]
        connection.sendall(RELEASE)
        assert read_pdu(connection)[0] == 0x06
    assert answers == [0x0000] * 3
    kept = [data_set_bytes(node.spool.path(i.content_sha256)) for i in node.instances]
    assert kept == [content for _, content in sent]


def test_over_tls_the_same_is_stored(tmp_path: Path, data_set: bytes, fast_path: bool) -> None:
    """Records of TLS end where PDUs do not; what OpenSSL has decrypted is not seen by poll()."""
    authority = Authority(tmp_path / "authority")
    own = authority.sign("node.example")
    held = Certificates(certificate=own.certificate, key=own.key, ca=authority.ca)
    tls = TlsSettings(port=0, certificate=own.certificate, key=own.key, ca=authority.ca)
    either = Settings(tls=tls, receive=ReceiveSettings(fast_path=fast_path))
    listening = listen("127.0.0.1", 0)
    address = listening.getsockname()
    with running_receiver(
        tmp_path / "node", settings=either, secure=(listening, held.server)
    ) as running:
        for size in (100, 3000, 40_000):
            name, content = fresh(data_set[:size] if size > 400 else data_set)
            session = p_data(store_command(name), command=True, last=True) + b"".join(
                p_data(content[at : at + 7001], command=False, last=at + 7001 >= len(content))
                for at in range(0, len(content), 7001)
            )
            with secured(address, held.client()) as connection:
                connection.sendall(association_request())
                assert read_pdu(connection)[0] == 0x02
                for at in range(0, len(session), size):
                    connection.sendall(session[at : at + size])
                assert status_in(read_pdu(connection)[1]) == 0x0000
            instance = running.ledger.exam(running.stored[-1]).instance
            assert data_set_bytes(running.spool.path(instance.content_sha256)) == content


def secured(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(address, timeout=20)
    context.check_hostname = False
    return context.wrap_socket(plain)


def test_a_hundred_senders_that_come_at_once_are_all_served(
    node: RunningReceiver, data_set: bytes
) -> None:
    gate = threading.Barrier(100)

    def send(sent: tuple[str, bytes]) -> int:
        name, content = sent
        gate.wait(60)
        with associated(node) as connection:
            gate.wait(60)  # all hundred are open
            connection.sendall(p_data(store_command(name), command=True, last=True))
            for at in range(0, len(content), 9000):
                last = at + 9000 >= len(content)
                connection.sendall(p_data(content[at : at + 9000], command=False, last=last))
            return status_in(read_pdu(connection)[1])

    with ThreadPoolExecutor(100) as senders:
        assert set(senders.map(send, [fresh(data_set) for _ in range(100)])) == {0x0000}
    assert len(node.instances) == 100
    wait_until(lambda: node.receiver.open_associations == 0)


def test_another_version_of_pynetdicom_is_used_as_it_is_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("dicom_node.scp.server.log", lambda event, **_: said.append(event))
    monkeypatch.setattr(waiting, "VERSION", "3.0.3")
    attached: list[object] = []
    monkeypatch.setattr(waiting, "attach", lambda *arguments: attached.append(arguments))
    file = write_file(tmp_path / "hand.dcm", hand_dataset())
    with running_receiver(tmp_path / "node") as node:
        answer = dcmtk("storescu", "-v", "-aec", "BONEAGE", *node.address, file)
    assert "Received Store Response (Success)" in answer
    assert (said, attached) == (["fast_path_off"], [])


def test_without_a_free_descriptor_a_connection_ends_and_the_next_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with running_receiver(tmp_path / "node") as node:
        threads = threading.active_count()
        with (
            no_free_descriptor(),
            socket.create_connection(node.endpoint, 10) as connection,
            suppress(ConnectionResetError),
        ):
            connection.sendall(association_request())
            assert connection.recv(1) == b""
        wait_until(lambda: threading.active_count() <= threads)
        with associated(node) as connection:
            connection.sendall(RELEASE)
            assert read_pdu(connection)[0] == 0x06


def test_its_threads_and_descriptors_end_with_their_association(node: RunningReceiver) -> None:
    threads, descriptors = threading.active_count(), own_descriptors()
    for _ in range(20):
        with associated(node) as connection:
            connection.sendall(RELEASE)
            assert read_pdu(connection)[0] == 0x06
        associated(node).close()  # gone without a word
    wait_until(lambda: threading.active_count() <= threads)
    wait_until(lambda: own_descriptors() <= descriptors + 2)
