"""Identity, missing and broken attributes, UIDs, times and bytes: what follows from the source."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.config import disable_value_validation

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.eligibility import Reason
from dicom_node.ports import ReportRequest
from tests.builders.reports import assessment, numbers, radiograph, read, texts

SECRET = "SEGREDO"
OPTIONAL = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "SpecificCharacterSet",
    "Manufacturer",
]


def test_the_identity_is_that_of_the_source_in_utf_8(sent: Any) -> None:
    source = radiograph()
    for report in SrReporter().build(sent(source, assessment())):
        dataset = read(report)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert "JOSÉ DA CONCEIÇÃO".encode() in report.encoded
        for keyword in (*OPTIONAL[:9], "StudyDescription", "StudyInstanceUID"):
            assert dataset[keyword].value == source[keyword].value, keyword


@pytest.mark.parametrize("keyword", OPTIONAL)
def test_a_source_without_it_still_gets_its_report(sent: Any, keyword: str) -> None:
    dataset = radiograph()
    del dataset[keyword]
    if keyword == "SpecificCharacterSet":
        dataset.PatientName, dataset.ReferringPhysicianName = "A^B", ""
        dataset.StudyDescription = "Mao"
    assert len(SrReporter().build(sent(dataset, assessment()))) == 2


@pytest.mark.parametrize("value", ["", None])
def test_a_source_with_empty_attributes_still_gets_its_report(sent: Any, value: Any) -> None:
    dataset = radiograph()
    for keyword in OPTIONAL:
        dataset[keyword].value = value
    del dataset.StudyDescription
    measurements, narrative = SrReporter().build(sent(dataset, assessment()))
    assert numbers(measurements)["85151-9"] == (126.35, "mo")
    assert read(narrative).PatientID in ("", None)


def test_a_source_with_invalid_attributes_gets_its_report_without_a_word_about_them(
    sent: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = radiograph()
    dataset.PatientAge = "012Y"
    request = sent(dataset, assessment())
    received = request.path.read_bytes()
    for valid, invalid in ((b"20100101", b"SEGREDO1"), (b"012Y", b"SEGR"), (b"101112", b"SEGRED")):
        assert received.count(valid) == 1
        received = received.replace(valid, invalid)
    request.path.write_bytes(received)
    for report in SrReporter().build(request):
        assert read(report).PatientBirthDate in ("", None)
        assert b"SEGR" not in report.encoded
    captured = capfd.readouterr()
    assert "SEGR" not in captured.out + captured.err + caplog.text


def test_uids_with_leading_zeros_are_referred_to_as_they_are_and_not_logged(
    sent: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    request = sent(radiograph(), assessment())
    received = request.path.read_bytes()
    assert received.count(b"1.2.3.4") == 2  # in the file meta information and in the data set
    request.path.write_bytes(received.replace(b"1.2.3.4", b"1.2.003"))
    for report in SrReporter().build(request):
        (study,) = read(report).CurrentRequestedProcedureEvidenceSequence
        reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        with disable_value_validation():
            assert reference.ReferencedSOPInstanceUID == "1.2.003"
    captured = capfd.readouterr()
    assert "1.2.003" not in captured.out + captured.err + caplog.text


def test_a_synthetic_image_makes_a_synthetic_report_that_says_so(sent: Any) -> None:
    dataset = radiograph()
    dataset.SyntheticData = "YES"
    reports = SrReporter().build(sent(dataset, assessment()))
    assert [read(report).SyntheticData for report in reports] == ["YES", "YES"]
    assert "IMAGEM SINTÉTICA" in texts(read(reports[1]))


def test_the_same_request_gives_the_same_bytes(sent: Any) -> None:
    request = sent(radiograph(), assessment())
    assert SrReporter().build(request) == SrReporter().build(request)


def test_another_process_gives_the_same_bytes(sent: Any, tmp_path: Path) -> None:
    request = sent(radiograph(), assessment())
    script = (
        "import pickle, sys\n"
        "from dicom_node.adapters.reporter import SrReporter\n"
        "for report in SrReporter().build(pickle.load(open(sys.argv[1], 'rb'))):\n"
        "    print(report.encoded.hex())\n"
    )
    pickled = tmp_path / "request"
    pickled.write_bytes(pickle.dumps(request))
    command = [sys.executable, "-c", script, str(pickled)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == [r.encoded.hex() for r in SrReporter().build(request)]


def uids(request: ReportRequest) -> set[str]:
    reports = SrReporter().build(request)
    found = {uid for r in reports for uid in (r.sop_instance_uid, r.series_instance_uid)}
    assert len(found) == 2 * len(reports)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in found)
    return found


def test_uids_follow_from_what_was_analysed_by_what_and_not_from_when(sent: Any) -> None:
    request = sent(radiograph(), assessment())
    first = uids(request)
    assert uids(replace(request, reported_at=datetime(2025, 1, 1, tzinfo=UTC))) == first
    prediction = assessment().prediction
    others = [
        replace(request, content_sha256="ef" * 32),
        replace(request, language="en"),
        replace(request, finding=Reason.IMAGE_BLANK),
        replace(request, finding=assessment(reference_id="brush-foundation")),
        replace(
            request,
            finding=assessment(
                prediction=replace(prediction, model=replace(prediction.model, sha256="12" * 32))
            ),
        ),
    ]
    for other in others:
        assert not uids(other) & first
    dataset = radiograph()
    dataset.SOPInstanceUID = "1.2.3.5"
    assert not uids(sent(dataset, assessment())) & first


def test_times_are_those_of_the_request_in_the_time_zone_of_the_source(sent: Any) -> None:
    dataset = radiograph()
    dataset.TimezoneOffsetFromUTC = "-0300"
    for report in SrReporter().build(sent(dataset, assessment())):
        written = read(report)
        assert written.TimezoneOffsetFromUTC == "-0300"
        assert (written.ContentDate, written.ContentTime) == ("20240305", "142233")
        assert (written.SeriesDate, written.SeriesTime) == ("20240305", "142233")
        assert written.InstanceCreationDate == "20240305"
        assert written.InstanceCreationTime == "142233"
        (equipment,) = written.ContributingEquipmentSequence
        assert equipment.ContributionDateTime == "20240305142233-0300"
