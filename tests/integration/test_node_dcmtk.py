"""A running node among DCMTK's programs: they send, they store what it reports, they read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from dicom_node.adapters.wording import explain
from tests.builders.exams import radiograph_dataset
from tests.builders.images import compressed, converted
from tests.integration.peers import dcmtk, running_storescp, wait_until
from tests.peers.node import Node, running_node, write_config

LANGUAGE = "pt-BR"
"""The node's language unless its configuration says otherwise."""
SAME_MONTHS = 0.05
NO_UTF_8_CHECKER = "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
"""What this DCMTK says of every object in UTF-8."""
TITLES = {"1.2.840.10008.5.1.4.1.1.88.34": "126000", "1.2.840.10008.5.1.4.1.1.88.22": "18748-4"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running node whose only destination is DCMTK's storescp."""

    node: Node
    stored: Path
    """Folder of what storescp received."""

    @property
    def address(self) -> tuple[object, ...]:
        """DCMTK's arguments to reach the node."""
        peer = self.node.peer
        return ("-aet", "MODALITY", "-aec", peer.ae_title, peer.host, peer.port)

    def send(self, path: Path) -> None:
        """Send a file by dcmsend, which proposes the file's own transfer syntax."""
        said = dcmtk("dcmsend", "-v", "-dn", *self.address, path)
        assert "Received C-STORE Response (Success)" in said, said

    def exam(self, path: Path) -> dict[str, Any]:
        """``exam show`` of the only exam of a file, once all its jobs have ended."""
        self.node.wait_until_idle(60)
        ledger = self.node.ledger()
        [exam_id] = ledger.exam_ids(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
        ledger.close()
        return dict(self.node.command("exam", "show", str(exam_id), "--json"))

    def reports(self, exam: dict[str, Any]) -> dict[str, Path]:
        """SOP Class UID to storescp's file of each report object of an exam."""
        wanted = {report["sop_instance_uid"]: report["sop_class_uid"] for report in exam["reports"]}
        received = {path: str(dcmread(path).SOPInstanceUID) for path in self.stored.iterdir()}
        found = {wanted[uid]: path for path, uid in received.items() if uid in wanted}
        assert len(found) == len(wanted)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running_storescp(folder / "stored", "-aet", "STORESCP") as port:
        write_config(
            folder / "node",
            [("storescp", "STORESCP", port)],
            extra='[inference]\nworkers = 1\ndevice = "cpu"\n',
        )
        with running_node(folder / "node") as node:
            yield Site(node=node, stored=folder / "stored")


def write_hand(path: Path, **values: Any) -> Path:
    """The same radiograph each time, under a new SOP Instance UID; the path."""
    drawn = {"bone_age_months": 170.0, "sex": "F", "SOPInstanceUID": generate_uid(), **values}
    hand = radiograph_dataset(modality="CR", **drawn)
    hand.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def plain(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the node found in the uncompressed radiograph, sent by storescu."""
    path = write_hand(tmp_path_factory.mktemp("plain") / "plain.dcm")
    said = dcmtk("storescu", "-v", *site.address, path)
    assert "Received Store Response (Success)" in said, said
    return site.exam(path)


def test_echoscu_reaches_the_node(site: Site) -> None:
    assert "Received Echo Response (Success)" in dcmtk("echoscu", "-v", *site.address)


def test_storescp_gets_both_reports_of_a_hand_and_dsrdump_reads_them(
    site: Site, plain: dict[str, Any]
) -> None:
    assert plain["exam"]["outcome"] == "assessed"
    reports = site.reports(plain)
    assert set(reports) == set(TITLES)
    for path in reports.values():
        dumped = dcmtk("dsrdump", "+Pl", path)
        assert dumped.startswith("exit 0"), dumped
        complaints = [line for line in dumped.splitlines() if line[:3] in ("E: ", "W: ")]
        assert set(complaints) <= {NO_UTF_8_CHECKER}
    months = f"{plain['prediction']['bone_age_months']:.2f}".rstrip("0").rstrip(".")
    measurements = dcmtk("dsrdump", "+Pc", reports["1.2.840.10008.5.1.4.1.1.88.34"])
    assert f'(85151-9,LN,"XR Bone age")="{months}" (mo,UCUM,"month")' in measurements


ENCODERS: dict[UID, tuple[str, ...]] = {
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls", "+el"),
    RLELossless: ("dcmcrle",),
    JPEG2000Lossless: (),
}
"""DCMTK's encoder of a transfer syntax; where it has none, pydicom's."""


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda uid: str(uid.name).split(",")[0])
def test_a_losslessly_compressed_hand_has_the_bone_age_of_the_plain_one(
    site: Site, plain: dict[str, Any], tmp_path: Path, syntax: UID
) -> None:
    source, target = write_hand(tmp_path / "plain.dcm"), tmp_path / "compressed.dcm"
    if ENCODERS[syntax]:
        converted(source, target, *ENCODERS[syntax])
    else:
        compressed(source, target, JPEG2000Lossless)
    assert dcmread(target).file_meta.TransferSyntaxUID == syntax
    assert target.stat().st_size < source.stat().st_size
    site.send(target)
    found = site.exam(target)
    assert found["exam"]["instance"]["transfer_syntax_uid"] == syntax
    assert_same_bone_age(found, plain)


def assert_same_bone_age(found: dict[str, Any], plain: dict[str, Any]) -> None:
    assert found["exam"]["outcome"] == "assessed"
    assert found["prediction"]["bone_age_months"] == pytest.approx(
        plain["prediction"]["bone_age_months"], abs=SAME_MONTHS
    )
    assert found["prediction"]["hand_box"] == plain["prediction"]["hand_box"]


def test_a_hand_in_implicit_vr_by_storescu_has_the_bone_age_of_the_explicit_one(
    site: Site, plain: dict[str, Any], tmp_path: Path
) -> None:
    path = converted(write_hand(tmp_path / "hand.dcm"), tmp_path / "implicit.dcm", "dcmconv", "+ti")
    said = dcmtk("storescu", "-v", "-xi", *site.address, path)
    assert "Received Store Response (Success)" in said, said
    assert_same_bone_age(site.exam(path), plain)


def test_the_inverted_twin_has_the_same_bone_age(
    site: Site, plain: dict[str, Any], tmp_path: Path
) -> None:
    path = write_hand(tmp_path / "dark-bones.dcm", PhotometricInterpretation="MONOCHROME1")
    twin = dcmread(path)
    pixels = 4095 - np.frombuffer(twin.PixelData, dtype="<u2")
    twin.PixelData = pixels.astype("<u2").tobytes()
    twin.save_as(path)
    site.send(path)
    assert_same_bone_age(site.exam(path), plain)


def garbage_in_a_codec(hand: Dataset) -> None:
    """Random bytes that the header calls JPEG Lossless."""
    noise = np.random.default_rng(1).bytes(5000)
    hand.PixelData = encapsulate([noise])
    hand["PixelData"].is_undefined_length = True
    hand.file_meta.TransferSyntaxUID = JPEGLosslessSV1


def half_the_pixels(hand: Dataset) -> None:
    """An object that was cut short where it was made."""
    hand.PixelData = hand.PixelData[: len(hand.PixelData) // 2]


@pytest.mark.parametrize("spoil", [garbage_in_a_codec, half_the_pixels])
def test_unreadable_pixels_end_as_a_report_that_says_so(
    site: Site, tmp_path: Path, spoil: Any
) -> None:
    path = write_hand(tmp_path / "broken.dcm")
    hand = dcmread(path)
    spoil(hand)
    hand.save_as(path)
    site.send(path)
    assert_reported_as_not_assessed(site, path, "pixels_unreadable")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"PatientSex": None}, "sex_missing"),
        ({"PatientSex": ""}, "sex_missing"),
        ({"ViewPosition": "LL"}, "view_not_frontal"),
    ],
)
def test_a_hand_that_cannot_be_assessed_gets_a_report_with_the_reason_in_words(
    site: Site, tmp_path: Path, values: dict[str, object], reason: str
) -> None:
    path = write_hand(tmp_path / "hand.dcm", **values)
    site.send(path)
    assert_reported_as_not_assessed(site, path, reason)


def assert_reported_as_not_assessed(site: Site, path: Path, reason: str) -> None:
    exam = site.exam(path)
    assert (exam["exam"]["outcome"], exam["exam"]["reason"]) == ("not_assessed", reason)
    assert exam["prediction"] is None
    [(sop_class, report)] = site.reports(exam).items()
    assert TITLES[sop_class] == "18748-4"
    assert explain(reason, LANGUAGE) in dcmtk("dsrdump", "+U8", "-Ps", "+Pl", report)


def test_dcmsend_sends_a_folder_of_everything_and_every_object_is_taken(
    site: Site, tmp_path: Path
) -> None:
    before = len(site.node.command("exam", "list", "--json", "--limit", "1000"))
    first = write_hand(tmp_path / "hand.dcm")
    converted(first, tmp_path / "twin.dcm", "dcmcrle", "+ua")  # +ua: a new SOP Instance UID
    shutil.copy(first, tmp_path / "copy.dcm")
    said = dcmtk("dcmsend", "-v", "-dn", "+sd", *site.address, tmp_path)
    assert said.count("Received C-STORE Response (Success)") == 3, said
    wait_until(
        lambda: len(site.node.command("exam", "list", "--json", "--limit", "1000")) == before + 2
    )


def test_dcmsend_with_a_wrong_ae_title_is_rejected_and_says_so(site: Site, tmp_path: Path) -> None:
    path = write_hand(tmp_path / "hand.dcm")
    peer = site.node.peer
    said = dcmtk("dcmsend", "-v", "-aec", "OTHER", peer.host, peer.port, path)
    assert not said.startswith("exit 0")
    assert "Association Rejected" in said
