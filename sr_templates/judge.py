"""highdicom judges the SR documents that `sr_templates` writes, by a sample of each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from sr_templates.content import (
    AssessedContent,
    Box,
    Device,
    Model,
    NotAssessedContent,
    Prior,
    ReportContent,
)
from sr_templates.encoding import encode_file
from sr_templates.measurement_report import build_measurement_report
from sr_templates.narrative import build_narrative
from sr_templates.source import Source, read_source
from sr_templates.wording import LANGUAGES


def differing_documents() -> tuple[int, list[str]]:
    """How many documents were compared, and which are not what highdicom makes of the same
    content."""
    from sr_templates.highdicom_reports import data_set, encoded

    source, compared, differing = _source(), 0, list[str]()
    for content in _contents():
        for name, made, judged in _documents(source, content):
            stated = dcmread(BytesIO(made)).SpecificCharacterSet
            compared += 1
            if data_set(made) != encoded(judged, stated):
                differing.append(f"{type(content).__name__} {name} {content.language}")
    return compared, differing


def _documents(source: Source, content: ReportContent) -> Iterator[tuple[str, bytes, Dataset]]:
    """Each document as it is written here, and as highdicom builds it."""
    from sr_templates import highdicom_reports as judge

    narrative = judge.build_narrative(source, content)
    yield "narrative", encode_file(build_narrative(source, content)), narrative
    if isinstance(content, AssessedContent):
        measurements = judge.build_measurement_report(source, content)
        made = encode_file(build_measurement_report(source, content))
        yield "measurements", made, measurements


def _source() -> Source:
    image = Dataset()
    image.SOPClassUID = DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID, image.SeriesInstanceUID = "2.25.1", "2.25.2"
    image.StudyInstanceUID = "2.25.3"
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName, image.PatientID = "Exemplo^Ação", "1"
    image.PatientSex, image.PatientBirthDate = "F", "20150504"
    image.StudyDate, image.StudyTime = "20250520", "101112"
    image.Rows, image.Columns = 2500, 2048
    image.PatientOrientation = ["L", "F"]
    image.ImagerPixelSpacing = [0.15, 0.15]
    return read_source(image)


def _contents() -> Iterator[ReportContent]:
    for language in LANGUAGES:
        common: dict[str, Any] = {
            "device": Device(
                name="node", manufacturer="maker", model_name="model", software_version="1"
            ),
            "content_sha256": "ab" * 32,
            "language": language,
            "reported_at": datetime(2025, 5, 20, 13, 30, tzinfo=UTC),
            "synthetic": False,
        }
        yield NotAssessedContent(**common, reason="sex_missing")
        yield AssessedContent(
            **common,
            model=Model(name="model", version="1", sha256="cd" * 32),
            hand_box=Box(left=100.0, top=200.0, right=1800.0, bottom=2400.0),
            saliency=None,
            bone_age_months=118.4,
            sd_months=7.9,
            sex="F",
            laterality="L",
            view_position="PA",
            chronological_age_months=120.5,
            difference_months=-2.1,
            population_sd_months=10.7,
            z_score=-0.2,
            determination="normal",
            reference_id="table",
            reference_title="A table",
            reference_sd_months=(),
            notes=("view_unstated",),
            priors=(
                Prior(
                    study_date=date(2024, 5, 20),
                    months_before=12.0,
                    chronological_age_months=108.5,
                    bone_age_months=107.2,
                    same_model=True,
                ),
            ),
        )
