"""DICOM over TLS in both directions, against DCMTK: who has no certificate gets nowhere, and an AE
title belongs to its certificate."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_node.adapters.scu.association import Peer, open_association
from dicom_node.adapters.scu.report_sender import DestinationAddress, DicomReportSender
from dicom_node.doctor import CheckStatus, check_certificates
from dicom_node.domain.delivery import ReportKind, ReportObject
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.scp.contexts import verification_context
from dicom_node.scp.guard import Cut
from dicom_node.scp.port import listen
from dicom_node.settings import InstitutionSettings, Settings, TlsSettings
from dicom_node.tls import Certificates
from tests.builders.certificates import Authority, Certificate
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.radiographs import radiograph_files
from tests.builders.report_objects import report_object
from tests.integration.peers import (
    RunningReceiver,
    dcmtk,
    running_receiver,
    running_storescp,
    wait_until,
)
from tests.peers.node import Node, running_node, write_config

TO_NODE = ("-aec", "BONEAGE")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def xray(authority: Authority) -> Certificate:
    """The certificate of the sender XRAY."""
    return authority.sign("xray1.hospital.example")


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """The node's certificate."""
    return authority.sign("node.example")


def certificates(own: Certificate, authority: Authority) -> Certificates:
    return Certificates(certificate=own.certificate, key=own.key, ca=authority.ca)


class Secured:
    """A receiver with a secure port."""

    def __init__(self, node: RunningReceiver, port: int) -> None:
        self.node, self.port = node, port

    def store(self, path: Path, *options: object, title: str = "XRAY") -> str:
        """storescu over TLS or not."""
        arguments = ("-v", "-aet", title, *TO_NODE, *options, "127.0.0.1", self.port, path)
        return dcmtk("storescu", *arguments)


@pytest.fixture
def secured(tmp_path: Path, own: Certificate, authority: Authority) -> Iterator[Secured]:
    institution = InstitutionSettings(
        id="hospital",
        name="Hospital",
        calling_ae_titles=("XRAY",),
        certificate_names=("xray1.hospital.example",),
    )
    tls = TlsSettings(port=0, certificate=own.certificate, key=own.key, ca=authority.ca)
    settings = Settings(institutions=(institution,), tls=tls)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    source = certificates(own, authority).server
    with running_receiver(
        tmp_path / "node", settings=settings, secure=(listening, source)
    ) as running:
        yield Secured(running, port)


def with_tls(mine: Certificate, authority: Authority) -> tuple[str, ...]:
    """DCMTK's options for a connection with a certificate."""
    return ("+tls", str(mine.key), str(mine.certificate), "+cf", str(authority.ca))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_file(tmp_path / "hand.dcm", hand_dataset())


def test_a_sender_with_its_certificate_stores(
    secured: Secured, xray: Certificate, authority: Authority, image: Path
) -> None:
    answer = secured.store(image, *with_tls(xray, authority))
    assert "Received Store Response (Success)" in answer
    [instance] = secured.node.instances
    assert (instance.institution_id, instance.calling_ae_title) == ("hospital", "XRAY")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(
    secured: Secured, xray: Certificate, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(xray.certificate, xray.key)
    context.minimum_version = context.maximum_version = version
    peer = Peer(host="127.0.0.1", port=secured.port, ae_title="BONEAGE", tls=lambda: context)
    association = open_association(
        peer, [verification_context()], calling_ae_title="XRAY", timeout_seconds=10
    )
    assert association.send_c_echo().Status == 0
    association.release()


def test_an_older_version_is_refused(
    secured: Secured, xray: Certificate, authority: Authority, cut: list[Cut]
) -> None:
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(xray.certificate, xray.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", secured.port), 10) as plain,
        pytest.raises(OSError, match=r"(?i)ssl|reset|version"),
        context.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass
    wait_until(lambda: cut == [Cut.NO_TLS])


def test_certificates_that_do_not_hold_get_nowhere(
    secured: Secured, authority: Authority, image: Path, tmp_path: Path, cut: list[Cut]
) -> None:
    stranger = Authority(tmp_path / "stranger")
    foreign = stranger.sign("xray1.hospital.example")
    ended = authority.sign("xray1.hospital.example", days=-1, file="ended")
    for mine in (foreign, ended):
        answer = secured.store(image, *with_tls(mine, authority))
        assert not answer.startswith("exit 0"), answer
    assert secured.node.stored == []
    wait_until(lambda: cut == [Cut.NO_TLS, Cut.NO_TLS])


def test_without_a_certificate_the_handshake_fails(
    secured: Secured, authority: Authority, image: Path, cut: list[Cut]
) -> None:
    answer = secured.store(image, "+tla", "+cf", authority.ca)
    assert not answer.startswith("exit 0"), answer
    assert secured.node.stored == []
    wait_until(lambda: cut == [Cut.NO_TLS])


def test_an_ae_title_belongs_to_its_certificate(
    secured: Secured, authority: Authority, image: Path
) -> None:
    other = authority.sign("xray9.elsewhere.example")
    answer = secured.store(image, *with_tls(other, authority))
    assert "Calling AE Title Not Recognized" in answer
    assert secured.node.stored == []


def test_an_ae_title_with_a_certificate_is_rejected_without_tls(
    secured: Secured, image: Path
) -> None:
    answer = dcmtk("storescu", "-aet", "XRAY", *TO_NODE, *secured.node.address, image)
    assert "Calling AE Title Not Recognized" in answer


def test_silent_connections_to_the_secure_port_hold_nobody_up(
    secured: Secured, xray: Certificate, authority: Authority, image: Path, cut: list[Cut]
) -> None:
    """The handshake runs in a connection's own thread, not where connections are accepted."""
    silent = [socket.create_connection(("127.0.0.1", secured.port)) for _ in range(10)]
    half = socket.create_connection(("127.0.0.1", secured.port))
    half.sendall(b"\x16\x03\x01\x02\x00\x01")
    begun = time.monotonic()
    assert "(Success)" in secured.store(image, *with_tls(xray, authority))
    assert time.monotonic() - begun < 3
    for connection in (*silent, half):
        connection.close()


def test_silent_connections_to_the_secure_port_take_few_threads(
    secured: Secured, cut: list[Cut]
) -> None:
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", secured.port)) for _ in range(100)]
    time.sleep(1)
    assert threading.active_count() - before <= 12
    for connection in silent:
        connection.close()
    assert Cut.NO_ASSOCIATION in cut


def test_a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    authority: Authority, own: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr("dicom_node.tls.log", lambda event, **_: events.append(event))
    mine = Certificate(certificate=tmp_path / "own.crt", key=tmp_path / "own.key")
    shutil.copy(own.certificate, mine.certificate)
    shutil.copy(own.key, mine.key)
    held = certificates(mine, authority)
    first = held.server()
    assert held.server() is first
    mine.certificate.write_text("no certificate")
    assert held.server() is first, "what was read before goes on"
    assert [held.server() for _ in range(5)] == [first] * 5
    assert events == ["certificates_not_renewed"], "said once"
    mine.certificate.unlink()
    assert [held.server() for _ in range(3)] == [first] * 3
    assert len(events) == 2
    renewed = authority.sign("node.example", file="renewed")
    shutil.copy(renewed.certificate, mine.certificate)
    assert held.server() is first, "the key does not belong to it yet"
    shutil.copy(renewed.key, mine.key)
    assert held.server() is not first
    with pytest.raises(Permanent) as caught:
        certificates(Certificate(certificate=mine.key, key=mine.key), authority).server()
    assert caught.value.fault is Fault.CERTIFICATE_INVALID


def test_the_doctor_knows_how_long_the_certificate_is_valid(
    authority: Authority, own: Certificate, tmp_path: Path
) -> None:
    lasting = authority.sign("node.example", days=90, file="lasting")
    good = check_certificates(certificates(lasting, authority))
    assert (good.status, "89 days" in good.found) == (CheckStatus.OK, True)
    soon = check_certificates(certificates(own, authority))
    assert (soon.status, "9 days" in soon.found) == (CheckStatus.WARNING, True)
    with pytest.raises(Permanent, match="does not hold"):
        check_certificates(certificates(own, Authority(tmp_path / "stranger")))


def report() -> ReportObject:
    dataset = hand_dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    return report_object(dataset, ReportKind.NARRATIVE)


def test_reports_go_to_a_destination_over_tls_and_only_to_the_right_one(
    authority: Authority, own: Certificate, tmp_path: Path
) -> None:
    pacs = authority.sign("pacs.example")
    false_pacs = Authority(tmp_path / "stranger").sign("pacs.example")
    held = certificates(own, authority)
    with ExitStack() as running:
        ports = [
            running.enter_context(
                running_storescp(tmp_path / name, *with_tls(mine, authority), "-rc")
            )
            for name, mine in (("right", pacs), ("wrong", false_pacs))
        ]
        sender = DicomReportSender(
            [
                DestinationAddress(
                    name=name,
                    peer=Peer(host="127.0.0.1", port=port, ae_title="PACS", tls=held.client),
                    timeout_seconds=10,
                )
                for name, port in zip(("right", "wrong"), ports, strict=True)
            ],
            calling_ae_title="BONEAGE",
        )
        assert sender.send("right", report()).status == 0
        with pytest.raises(Transient, match="its certificate is not trusted") as caught:
            sender.send("wrong", report())
        assert caught.value.fault is Fault.DESTINATION_UNAVAILABLE
        sender.close()
    assert len(list((tmp_path / "right").glob("*"))) == 1
    assert list((tmp_path / "wrong").glob("*")) == []


def test_a_whole_node_receives_and_delivers_over_tls(
    authority: Authority, own: Certificate, xray: Certificate, tmp_path: Path
) -> None:
    pacs = authority.sign("pacs.example")
    extra = f"""
[tls]
port = 0
certificate = "{own.certificate}"
key = "{own.key}"
ca = "{authority.ca}"
required = true
"""
    with running_storescp(tmp_path / "pacs", *with_tls(pacs, authority)) as port:
        config = write_config(tmp_path / "node", [("pacs", "PACS", port)], extra=extra)
        config.write_text(config.read_text() + "\ntls = true\n")
        [image] = radiograph_files(tmp_path / "sent", 1)
        with running_node(tmp_path / "node") as node:
            plain = dcmtk("storescu", *TO_NODE, "127.0.0.1", node.note["port"], image)
            assert "Calling AE Title Not Recognized" in plain
            arguments = (*TO_NODE, *with_tls(xray, authority), "127.0.0.1")
            sent = dcmtk("storescu", "-v", *arguments, node.note["tls_port"], image)
            assert "(Success)" in sent
            node.wait_until_idle(60)
            found = {check["name"]: check["status"] for check in doctor(node)}
            assert found["certificates"] == "warning", "nine days"
            assert found["destination pacs"] == "ok"
    assert len(list((tmp_path / "pacs").iterdir())) == 2


def doctor(node: Node) -> list[dict[str, str]]:
    """What ``dicom-node doctor`` finds."""
    found: list[dict[str, str]] = node.command("doctor", "--json")
    return found
