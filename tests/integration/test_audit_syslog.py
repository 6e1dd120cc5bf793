"""The audit trail to rsyslog over mutual TLS: whole, in order, kept while nobody takes it, and not
given to who shows the wrong certificate."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from dicom_node.adapters.audit import AuditFolders, AuditForwarder, DiskTrail, Syslog, waiting
from dicom_node.tls import Certificates
from tests.builders.audit import ORIGIN, every_kind, schema_errors, xml_of
from tests.builders.certificates import Authority, Certificate
from tests.integration.peers import free_port, wait_until
from tests.peers.rsyslog import Rsyslog, needs_rsyslog

NODE_NAME, REPOSITORY_NAME = "node.example", "repository.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    return authority.sign(NODE_NAME)


@pytest.fixture(scope="module")
def repositorys(authority: Authority) -> Certificate:
    return authority.sign(REPOSITORY_NAME)


@pytest.fixture
def folders(tmp_path: Path) -> AuditFolders:
    return AuditFolders(root=tmp_path / "audit")


@pytest.fixture
def rsyslog(tmp_path: Path, authority: Authority, repositorys: Certificate) -> Rsyslog:
    return Rsyslog(tmp_path / "rsyslog", authority, repositorys, peer=NODE_NAME)


def forwarder(
    folders: AuditFolders, port: int, own: Certificate, authority: Authority
) -> AuditForwarder:
    certificates = Certificates(certificate=own.certificate, key=own.key, ca=authority.ca)
    return AuditForwarder(folders, Syslog("127.0.0.1", port, certificates.client))


def record(folders: AuditFolders, times: int = 1) -> list[bytes]:
    """Record every kind so often; the messages that wait."""
    trail = DiskTrail(folders, ORIGIN)
    assert all(trail.record(m) for _ in range(times) for m in every_kind().values())
    return [path.read_bytes() for path in waiting(folders)]


@needs_rsyslog
def test_every_kind_arrives_whole_and_in_order(
    folders: AuditFolders, rsyslog: Rsyslog, own: Certificate, authority: Authority
) -> None:
    messages = record(folders, times=10)
    with rsyslog.running():
        assert forwarder(folders, rsyslog.port, own, authority).forward()
        wait_until(lambda: len(rsyslog.received) >= len(messages), seconds=60)
    assert rsyslog.received == messages
    assert waiting(folders) == []
    assert all(schema_errors(xml_of(line)) == [] for line in rsyslog.received)


@needs_rsyslog
def test_while_the_repository_is_away_messages_wait_and_then_arrive_in_order(
    folders: AuditFolders, rsyslog: Rsyslog, own: Certificate, authority: Authority
) -> None:
    stop = threading.Event()
    thread = threading.Thread(
        target=forwarder(folders, rsyslog.port, own, authority).run, args=(stop,)
    )
    thread.start()
    try:
        with rsyslog.running():
            record(folders)
            wait_until(lambda: not waiting(folders), seconds=60)
        messages = record(folders)
        assert len(messages) == len(every_kind())
        with rsyslog.running():
            wait_until(lambda: not waiting(folders), seconds=60)
            wait_until(lambda: len(rsyslog.received) >= 2 * len(messages), seconds=60)
    finally:
        stop.set()
        thread.join()
    numbers = [line.split(b'sequenceId="')[1].split(b'"')[0] for line in rsyslog.received]
    assert numbers == [str(n).encode() for n in range(1, 2 * len(messages) + 1)]


@needs_rsyslog
def test_a_repository_that_does_not_trust_the_node_gets_nothing(
    tmp_path: Path, folders: AuditFolders, rsyslog: Rsyslog, authority: Authority
) -> None:
    messages = record(folders)
    elsewhere = Authority(tmp_path / "elsewhere").sign(NODE_NAME)
    with rsyslog.running():
        assert not forwarder(folders, rsyslog.port, elsewhere, authority).forward()
    assert len(waiting(folders)) == len(messages)
    assert rsyslog.received == []


@needs_rsyslog
def test_what_is_taken_for_sent_was_read(
    folders: AuditFolders, rsyslog: Rsyslog, authority: Authority
) -> None:
    """rsyslog ends the connection of a node whose name it does not permit in order, sometimes after
    it has read everything, sometimes before."""
    sending = forwarder(folders, rsyslog.port, authority.sign("stranger.example"), authority)
    sent = 0
    with rsyslog.running():
        for _ in range(10):
            waits = record(folders) if not waiting(folders) else waiting(folders)
            sent += len(waits) if sending.forward() else 0
        wait_until(lambda: len(rsyslog.received) >= sent, seconds=60)
    assert len(rsyslog.received) == sent


@needs_rsyslog
def test_a_repository_with_another_certificate_gets_nothing(
    tmp_path: Path, folders: AuditFolders, authority: Authority, own: Certificate
) -> None:
    elsewhere = Authority(tmp_path / "elsewhere", "elsewhere")
    false = Rsyslog(tmp_path / "false", elsewhere, elsewhere.sign("false.example"), peer=NODE_NAME)
    record(folders)
    with false.running():
        assert not forwarder(folders, false.port, own, authority).forward()
    assert false.received == []
    assert len(waiting(folders)) == len(every_kind())


def test_a_repository_that_breaks_off_before_it_has_read_gets_all_of_it_again(
    folders: AuditFolders, own: Certificate, authority: Authority
) -> None:
    messages = record(folders)
    server = Certificates(certificate=own.certificate, key=own.key, ca=authority.ca).server()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        received: list[bytes] = []

        def serve() -> None:
            for read_all in (False, True):
                connection = server.wrap_socket(listening.accept()[0], server_side=True)
                received.append(connection.recv(10))
                if not read_all:  # a close with unread data is a reset
                    time.sleep(0.2)
                while read_all and (more := connection.recv(65536)):
                    received.append(more)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        sending = forwarder(folders, listening.getsockname()[1], own, authority)
        assert not sending.forward()
        assert len(waiting(folders)) == len(messages)
        assert sending.forward()
        thread.join()
    frames = b"".join(b"%d %s" % (len(message), message) for message in messages)
    assert b"".join(received[1:]) == frames


def test_without_anybody_there_messages_wait(
    folders: AuditFolders, own: Certificate, authority: Authority
) -> None:
    messages = record(folders)
    assert not forwarder(folders, free_port(), own, authority).forward()
    missing = Certificates(certificate=Path("/none"), key=Path("/none"), ca=Path("/none"))
    assert not AuditForwarder(folders, Syslog("127.0.0.1", 9, missing.client)).forward()
    assert [path.read_bytes() for path in waiting(folders)] == messages
