"""What arrives at a destination: as which SOP class, under which names, how compressed."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_node.domain.delivery import SOP_CLASS_NOT_SUPPORTED, SOP_CLASSES, Answer, ReportKind
from dicom_node.domain.errors import Fault, Permanent
from sr_templates.capture import build_capture
from sr_templates.content import Device, NotAssessedContent
from sr_templates.encoding import encode_file
from sr_templates.source import read_source
from sr_templates.uids import derived_uid
from tests.builders.dicom_files import hand_dataset
from tests.integration.peers import running_storescp, taking
from tests.peers.sender import (
    BASIC_TEXT_SR,
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    CR_IMAGE,
    ENHANCED_SR,
    failure,
    report,
    sender_to,
)

pytestmark = pytest.mark.usefixtures("either_way")


def stored_in(folder: Path) -> Dataset:
    [path] = folder.iterdir()
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    ("kind", "taken", "expected"),
    [
        (ReportKind.MEASUREMENTS, (COMPREHENSIVE_SR, ENHANCED_SR), COMPREHENSIVE_SR),
        (ReportKind.MEASUREMENTS, (ENHANCED_SR, BASIC_TEXT_SR), ENHANCED_SR),
        (ReportKind.NARRATIVE, (BASIC_TEXT_SR,), BASIC_TEXT_SR),
        (ReportKind.NARRATIVE, (COMPREHENSIVE_SR, BASIC_TEXT_SR), COMPREHENSIVE_SR),
    ],
)
def test_storescp_gets_the_first_sop_class_that_it_takes(
    tmp_path: Path, kind: ReportKind, taken: tuple[str, ...], expected: str
) -> None:
    sent = report(SOP_CLASSES[kind][0], kind=kind)
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, *taken)) as port:
        sender = sender_to(port)
        answers = [sender.send("pacs", sent) for _ in range(2)]
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert answers[0] == answers[1]
    assert answers[0] == Answer(
        status=0,
        sent_sop_class_uid=expected,
        sent_sop_instance_uid=derived_uid(sent.sop_instance_uid, expected),
    )
    assert stored.SOPClassUID == stored.file_meta.MediaStorageSOPClassUID == expected
    assert stored.SOPInstanceUID == answers[0].sent_sop_instance_uid


@pytest.mark.parametrize("before", [COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, None])
@pytest.mark.parametrize("now", [COMPREHENSIVE_3D_SR, ENHANCED_SR])
def test_what_a_document_replaces_is_named_as_the_destination_has_it(
    tmp_path: Path, before: str | None, now: str
) -> None:
    delivered = {}
    if before is not None:
        delivered["2.25.77"] = Answer(
            status=0, sent_sop_class_uid=before, sent_sop_instance_uid="2.25.78"
        )
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, now)) as port:
        sender = sender_to(port)
        sender.send("pacs", report(replaces="2.25.77"), delivered)
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert stored.SOPClassUID == now
    [study] = stored.PredecessorDocumentsSequence
    [replaced] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert replaced.ReferencedSOPClassUID == (before or COMPREHENSIVE_3D_SR)
    assert replaced.ReferencedSOPInstanceUID == ("2.25.78" if before else "2.25.77")


def test_an_object_of_no_sop_class_that_storescp_takes_stays_and_others_go(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, BASIC_TEXT_SR)) as port:
        sender = sender_to(port)
        begun = time.monotonic()
        measurements = sender.send("pacs", report())
        narrative = sender.send("pacs", report(ENHANCED_SR, kind=ReportKind.NARRATIVE))
        sender.close()
    assert time.monotonic() - begun < 8, "a second association waited for the first one to end"
    assert measurements.status == SOP_CLASS_NOT_SUPPORTED
    assert measurements.sent_sop_class_uid == COMPREHENSIVE_3D_SR
    assert narrative.status == 0
    assert stored_in(tmp_path / "pacs").SOPClassUID == BASIC_TEXT_SR


def test_storescp_that_takes_no_report_at_all_refuses_the_association(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs", *taking(tmp_path, CR_IMAGE)) as port:
        error = failure(port)
    assert isinstance(error, Permanent)
    assert error.fault is Fault.DESTINATION_REFUSED


@pytest.mark.parametrize(
    ("options", "syntax"),
    [(("-pm", "+xy"), JPEGBaseline8Bit), (("-pm", "+xi"), ImplicitVRLittleEndian)],
)
def test_a_picture_goes_compressed_where_that_is_taken_and_else_decoded(
    tmp_path: Path, options: tuple[str, ...], syntax: str
) -> None:
    slope = Image.linear_gradient("L").resize((64, 48))
    picture = Image.merge("RGB", (slope, slope.rotate(180), slope.rotate(90)))
    source = read_source(hand_dataset())
    content = NotAssessedContent(
        device=Device(name="n", manufacturer="m", model_name="b", software_version="1"),
        content_sha256="ab" * 32,
        language="en",
        reported_at=datetime(2026, 3, 1, tzinfo=UTC),
        synthetic=False,
        reason="image_blank",
    )
    made = build_capture(source, content, picture)
    sent = replace(
        report(str(made["SOPClassUID"]), kind=ReportKind.CAPTURE),
        encoded=encode_file(made, transfer_syntax=JPEGBaseline8Bit),
        sop_instance_uid=str(made["SOPInstanceUID"]),
    )
    with running_storescp(tmp_path / "pacs", *options) as port:
        sender = sender_to(port)
        assert sender.send("pacs", sent).status == 0
        sender.close()
    stored = stored_in(tmp_path / "pacs")
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.SOPInstanceUID == sent.sop_instance_uid
    assert stored.LossyImageCompression == "01"
    assert stored.PhotometricInterpretation == (
        "YBR_FULL_422" if syntax == JPEGBaseline8Bit else "RGB"
    )
    assert np.abs(stored.pixel_array.astype(int) - np.asarray(picture)).mean() < 6
