"""A disk that fills up while objects arrive: it is answered with a status, and receiving goes on
when there is room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from dicom_node.settings import ReceiveSettings, Settings
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.pdus import CR_IMAGE
from tests.integration.peers import dcmtk, file_system, running_receiver, wait_until

TO_NODE = ("-aec", "BONEAGE")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with file_system(tmp_path / "disk", "size=4m") as folder:
        yield folder


def test_a_disk_that_fills_up_within_an_object_is_answered_and_recovers(
    small_disk: Path, tmp_path: Path, fast_path: bool
) -> None:
    """By the status that tells the sender to come back; the association goes on."""
    large = write_file(tmp_path / "large.dcm", hand_dataset(PixelData=bytes(6_000_000)))
    small = write_file(tmp_path / "small.dcm", hand_dataset(SOPInstanceUID="1.2.3.4.5"))
    either = Settings(receive=ReceiveSettings(fast_path=fast_path))
    with running_receiver(small_disk / "node", settings=either) as node:
        ae = AE("RAW")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate(*node.endpoint, ae_title="BONEAGE")
        assert association.send_c_store(large).Status == 0xA700
        wait_until(lambda: node.incoming == [])
        assert association.send_c_store(small).Status == 0x0000
        association.release()
        assert [instance.sop_instance_uid for instance in node.instances] == ["1.2.3.4.5"]


def test_a_disk_that_is_nearly_full_is_answered_on_open_associations_and_recovers(
    small_disk: Path, tmp_path: Path, fast_path: bool
) -> None:
    """The rest of the disk is for the work that is queued."""
    small = Settings(receive=ReceiveSettings(high_water_percent=60, fast_path=fast_path))
    files = [write_file(tmp_path / f"{number}.dcm", hand_dataset()) for number in range(3)]
    with running_receiver(small_disk / "node", settings=small) as node:
        ae = AE("RAW")
        ae.add_requested_context(CR_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate(*node.endpoint, ae_title="BONEAGE")
        assert association.send_c_store(files[0]).Status == 0x0000
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(3_500_000))
        assert association.send_c_store(files[1]).Status == 0xA700
        assert "Temporary Congestion" in dcmtk("echoscu", "-v", *TO_NODE, *node.address)
        ballast.unlink()
        assert association.send_c_store(files[2]).Status == 0x0000
        association.release()
        assert "Success" in dcmtk("echoscu", "-v", *TO_NODE, *node.address)
        assert len(node.instances) == 2
