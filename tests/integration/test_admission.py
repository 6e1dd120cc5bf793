"""Who is let in, how many at once, how fast, and how receiving ends; with the real spool and
ledger, against DCMTK's senders."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node.scp.port import listen
from dicom_node.settings import InstitutionSettings, NodeSettings, ReceiveSettings, Settings
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import RunningReceiver, dcmtk, running_receiver, wait_until

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


def associate(node: RunningReceiver) -> Association:
    ae = AE("MODALITY")
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", node.receiver.bound_port, ae_title="BONEAGE")


def refused(node: RunningReceiver, *arguments: object) -> str:
    answer = dcmtk("echoscu", *arguments, *node.address)
    assert not answer.startswith("exit 0")
    return answer


def test_a_wrong_called_ae_title_is_rejected(node: RunningReceiver) -> None:
    answer = refused(node, "-aet", "MODALITY", "-aec", "OTHER")
    assert "Rejected Permanent" in answer
    assert "Called AE Title Not Recognized" in answer


def test_the_nodes_own_ae_title_as_a_sender_is_rejected(node: RunningReceiver) -> None:
    answer = refused(node, "-aet", "BONEAGE", "-aec", "BONEAGE")
    assert "Calling AE Title Not Recognized" in answer


def strict_settings(*networks: str) -> Settings:
    clinic = InstitutionSettings.model_validate(
        {"id": "c", "name": "C", "calling_ae_titles": ["XRAY"], "networks": networks}
    )
    return Settings(
        node=NodeSettings(ae_title="BONEAGE"),
        receive=ReceiveSettings(require_known_sender=True),
        institutions=(clinic,),
    )


def test_an_unknown_sender_is_rejected_and_a_known_one_is_attributed(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "node", settings=strict_settings("127.0.0.0/8")) as node:
        assert "Calling AE Title Not Recognized" in refused(node, *TO_NODE)
        sent = hand_file(tmp_path)
        dcmtk("storescu", "-aet", "XRAY", "-aec", "BONEAGE", *node.address, sent)
        assert [instance.institution_id for instance in node.instances] == ["c"]


def test_a_known_sender_from_a_foreign_network_is_rejected(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "node", settings=strict_settings("10.0.0.0/8")) as node:
        answer = refused(node, "-aet", "XRAY", "-aec", "BONEAGE")
        assert "Calling AE Title Not Recognized" in answer


def test_a_full_disk_rejects_before_any_data(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "node", settings=limits(high_water_percent=1)) as node:
        assert node.spool.usage_percent() >= 1, "the test needs a disk that is not empty"
        answer = dcmtk("storescu", *TO_NODE, *node.address, hand_file(tmp_path))
        assert "Rejected Transient" in answer
        assert "Temporary Congestion" in answer


def test_silent_connections_take_no_place(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "node", settings=limits(max_associations=2)) as node:
        silent = [socket.create_connection(node.endpoint) for _ in range(10)]
        answer = dcmtk("storescu", "-v", *TO_NODE, *node.address, hand_file(tmp_path))
        assert "Received Store Response (Success)" in answer
        for connection in silent:
            connection.close()


def test_sixty_associations_on_twenty_places_lose_nothing(tmp_path: Path) -> None:
    """20 hold their place, 40 are rejected for now; when places come free, all 60 have stored."""
    with running_receiver(
        tmp_path / "node", settings=limits(max_associations=20, max_associations_per_peer=20)
    ) as node:
        held = [associate(node) for _ in range(20)]
        assert all(association.is_established for association in held)
        files = [hand_file(tmp_path, f"{number}.dcm", side_pixels=16) for number in range(60)]
        rejected = threading.Semaphore(0)

        def send_until_accepted(path: Path) -> str:
            while True:
                answer = dcmtk("storescu", "-v", *TO_NODE, *node.address, path)
                if answer.startswith("exit 0"):
                    return answer
                assert "Rejected Transient" in answer
                assert "Local Limit Exceeded" in answer
                rejected.release()

        with ThreadPoolExecutor(40) as senders:
            waiting = [senders.submit(send_until_accepted, path) for path in files[20:]]
            for _ in range(40):
                assert rejected.acquire(timeout=60)
            for association, path in zip(held, files[:20], strict=True):
                assert association.send_c_store(path).Status == 0x0000
                association.release()
            assert all("(Success)" in sender.result(timeout=120) for sender in waiting)
        assert len(node.instances) == 60


def test_a_peer_has_its_own_limit(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "node", settings=limits(max_associations_per_peer=1)) as node:
        held = associate(node)
        assert "Local Limit Exceeded" in refused(node, *TO_NODE)
        held.release()
        wait_until(lambda: node.receiver.open_associations == 0)
        assert "Success" in dcmtk("echoscu", "-v", *TO_NODE, *node.address)


def test_a_drain_lets_open_associations_finish_and_refuses_new_connections(
    node: RunningReceiver, tmp_path: Path
) -> None:
    association = associate(node)
    with ThreadPoolExecutor(1) as background:
        draining = background.submit(node.receiver.drain, 60.0)
        wait_until(lambda: not _accepts(node))
        for number in range(3):
            path = hand_file(tmp_path, f"{number}.dcm")
            assert association.send_c_store(path).Status == 0x0000
        association.release()
        assert draining.result(timeout=30) == 0
    assert len(node.stored) == 3


def _accepts(node: RunningReceiver) -> bool:
    try:
        socket.create_connection(node.endpoint, timeout=5).close()
    except ConnectionError:
        return False
    return True


def test_a_drain_aborts_what_outlasts_the_grace_time(node: RunningReceiver) -> None:
    association = associate(node)
    assert node.receiver.drain(0.1) == 1
    wait_until(lambda: not association.is_established)
    assert association.is_aborted


def test_receivers_share_a_port_and_one_goes_on_without_the_other(tmp_path: Path) -> None:
    with (
        listen("127.0.0.1", 0) as listening,
        running_receiver(tmp_path / "a", listening=listening.dup()) as first,
        running_receiver(tmp_path / "b", listening=listening.dup()) as second,
    ):
        assert first.receiver.bound_port == second.receiver.bound_port
        files = [hand_file(tmp_path, f"{number}.dcm") for number in range(8)]
        for path in files:
            dcmtk("storescu", *TO_NODE, *first.address, path)
        assert len(first.stored) + len(second.stored) == len(files)
        first.receiver.stop()
        second.stored.clear()
        for path in files:
            dcmtk("storescu", *TO_NODE, *second.address, path)
        assert len(second.stored) == len(files)


def test_the_receiver_gives_the_temporary_folder_back(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with running_receiver(tmp_path / "node"):
        assert tempfile.gettempdir() != before
    assert tempfile.gettempdir() == before


def test_an_institution_that_floods_is_slowed_and_another_is_not(tmp_path: Path) -> None:
    fast, calm = (
        InstitutionSettings(
            id=name, name=name, calling_ae_titles=(name.upper(),), images_per_minute=limit
        )
        for name, limit in (("fast", 60), ("calm", None))
    )
    files = [hand_file(tmp_path, f"{number}.dcm", side_pixels=16) for number in range(63)]
    with running_receiver(tmp_path / "node", settings=Settings(institutions=(fast, calm))) as node:
        with ThreadPoolExecutor(1) as flood:
            begun = time.monotonic()
            sent = flood.submit(dcmtk, "storescu", *TO_NODE, "-aet", "FAST", *node.address, *files)
            wait_until(lambda: len(node.stored) >= 61)
            aside = time.monotonic()
            for path in files[:5]:
                dcmtk("storescu", *TO_NODE, "-aet", "CALM", *node.address, path)
            assert time.monotonic() - aside < 2.5
            assert sent.result().startswith("exit 0")
            assert time.monotonic() - begun > 2.5, "three beyond the sixty"
        assert len(node.instances) == 63
