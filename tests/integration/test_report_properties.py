"""Whatever header screening accepts, its report is valid, by dciodvfy, and can be read back."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.adapters.reference_tables import load_reference_table, reference_table_ids
from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import Note, Prediction
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.eligibility import Eligible, Ineligible, screen
from dicom_node.headers import read_header
from dicom_node.ports import ReportRequest
from dicom_node.stages.report import assessment_of
from dicom_node.stages.screen import eligibility_of
from tests.builders.reports import assessment, radiograph

LETTERS = st.characters(
    min_codepoint=32, max_codepoint=0x24F, exclude_categories=["Cc"], exclude_characters="\\="
)
TEXT = st.text(LETTERS, max_size=30)
SHORT = st.text(LETTERS, max_size=8)
"""Two bytes a letter: dciodvfy counts bytes where PS3.5 6.2 counts characters."""
NAME = st.builds("^".join, st.lists(st.text(LETTERS, max_size=12), min_size=1, max_size=3))
DAY = st.one_of(
    st.dates(datetime(2005, 1, 1).date(), datetime(2026, 1, 1).date()).map(
        lambda day: day.strftime("%Y%m%d")
    ),
    st.sampled_from(["", "20130229", "2013.02.01", "yesterday"]),
)
HEADER = st.fixed_dictionaries(
    {
        "PatientName": NAME,
        "PatientID": TEXT,
        "PatientBirthDate": DAY,
        "PatientSex": st.sampled_from(["F", "M", "f", "O", ""]),
        "PatientAge": st.sampled_from(["", "012Y", "100M", "12"]),
        "AccessionNumber": SHORT,
        "StudyID": SHORT,
        "StudyDate": DAY,
        "StudyTime": st.sampled_from(["", "10", "101112", "101112.123456", "25", "10:11"]),
        "ReferringPhysicianName": NAME,
        "StudyDescription": TEXT,
        "TimezoneOffsetFromUTC": st.sampled_from(["", "-0300", "+1400", "0300"]),
        "ImageLaterality": st.sampled_from(["", "L", "R", "B", "U", "LEFT"]),
        "ViewPosition": st.sampled_from(["", "PA", "AP"]),
        "BodyPartExamined": st.sampled_from(["", "HAND", "MÃO", "UPPER LIMB"]),
        "SyntheticData": st.sampled_from(["", "YES", "NO"]),
    }
)
ABSENT = st.sets(st.sampled_from(["PatientName", "PatientID", "PatientBirthDate", "StudyID",
    "AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName", "PatientOrientation",
    "ImagerPixelSpacing"]))  # fmt: skip
PREDICTED = st.builds(
    lambda months, sd, notes: (months, sd, tuple(notes)),
    st.floats(0, 228),
    st.floats(1, 13),
    st.sets(st.sampled_from([Note.IMAGE_TURNED, Note.TWO_HANDS_LEFT_ASSESSED])),
)


def source(header: dict[str, str], absent: set[str]) -> Dataset:
    dataset = radiograph()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Modality = "CR"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    for keyword in absent:
        del dataset[keyword]
    return dataset


def written(dataset: Dataset, path: Path) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


def errors(path: Path) -> list[str]:
    command = [str(Path(sys.executable).parent / "dciodvfy"), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    return [line for line in said.stderr.splitlines() if line.startswith("Error")]


@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes many minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    header=HEADER,
    absent=ABSENT,
    predicted=PREDICTED,
    language=st.sampled_from(["pt-BR", "en"]),
    table=st.sampled_from(reference_table_ids()),
)
def test_any_header_that_screening_accepts_gives_a_valid_report(
    tmp_path: Path,
    header: dict[str, str],
    absent: set[str],
    predicted: tuple[float, float, tuple[Note, ...]],
    language: str,
    table: str,
) -> None:
    with disable_value_validation():
        path = written(source(header, absent), tmp_path / "received.dcm")
    screened = read_header(path)
    request = ReportRequest(
        path=path,
        content_sha256="ab" * 32,
        finding=finding(screen(screened), screened, predicted, table),
        language=language,
        reported_at=datetime(2026, 3, 1, tzinfo=UTC),
        kinds=frozenset(ReportKind),
    )
    for made in SrReporter().build(request):
        target = tmp_path / f"{made.kind}.dcm"
        target.write_bytes(made.encoded)
        assert errors(target) == [], made.kind
        report = dcmread(BytesIO(made.encoded))
        stated = "" if "PatientID" in absent else header["PatientID"].strip()
        assert (report.PatientID or "") == stated


def finding(
    decision: Eligible | Ineligible,
    header: Any,
    predicted: tuple[float, float, tuple[Note, ...]],
    table: str,
) -> Any:
    """What the node would report of the header, had the model said ``predicted``."""
    if isinstance(decision, Ineligible):
        return decision.reason
    months, sd, notes = predicted
    known = assessment().prediction
    prediction = Prediction(
        bone_age_months=months,
        sd_months=sd,
        hand_box=known.hand_box,
        findings=notes,
        saliency=known.saliency,
        model=known.model,
    )
    reference = load_reference_table(table)
    return assessment_of(eligibility_of(header, decision, None), prediction, reference)
