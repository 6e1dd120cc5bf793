"""Headers of received radiographs, assessments of them and requests for their reports."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.sr import MeasurementReport, srread
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import (
    Assessment,
    Determination,
    HandBox,
    ModelIdentity,
    Prediction,
    PriorResult,
    Saliency,
)
from dicom_node.domain.delivery import PreviousReport, ReportKind, ReportObject
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.exam import Laterality, Sex
from dicom_node.ports import ReportRequest

Sent = Callable[..., ReportRequest]
"""Header, finding and changes to a request."""

REPORTED_AT = datetime(2024, 3, 5, 17, 22, 33, 123456, tzinfo=UTC)


def radiograph() -> Dataset:
    """The header of a plain CR hand, Latin-1, without pixels: the report reads none."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.1"
    dataset.Modality = "CR"
    dataset.Manufacturer = "Maker"
    dataset.PatientName = "JOSÉ DA CONCEIÇÃO"
    dataset.PatientID = "7"
    dataset.PatientBirthDate = "20100101"
    dataset.PatientSex = "F"
    dataset.AccessionNumber = "A1"
    dataset.StudyID = "S1"
    dataset.StudyDate = "20220701"
    dataset.StudyTime = "101112"
    dataset.ReferringPhysicianName = "ANDRÉ^SÃO"
    dataset.StudyDescription = "Mão e punho"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [0.1, 0.1]
    dataset.Rows, dataset.Columns = 2000, 1600
    return dataset


def assessment(**changes: Any) -> Assessment:
    prediction = Prediction(
        bone_age_months=126.347,
        sd_months=6.25,
        hand_box=HandBox(left=100, top=120.5, right=1500, bottom=1900),
        findings=(),
        saliency=Saliency(
            box=HandBox(left=16, top=13.5, right=1584, bottom=2000), levels=((9, 200), (30, 255))
        ),
        model=ModelIdentity(name="boneage-test", version="1.2.0", sha256="cd" * 32),
    )
    values: dict[str, Any] = {
        "prediction": prediction,
        "sex": Sex.FEMALE,
        "laterality": Laterality.LEFT,
        "view_position": "PA",
        "chronological_age_months": 150.0,
        "difference_months": 126.347 - 150.0,
        "population_sd_months": 14.3,
        "z_score": (126.347 - 150.0) / 14.3,
        "determination": Determination.NORMAL,
        "reference_id": "greulich-pyle-v-vi",
        "reference_title": "Greulich & Pyle 1959, V/VI",
        "reference_sd_months": ((12.0, 2.7), (96.0, 8.8), (180.0, 11.2)),
        "notes": (),
        "study_date": date(2022, 7, 1),
        "priors": (),
    }
    return Assessment(**{**values, **changes})


def request_for(
    path: Path, dataset: Dataset, finding: Assessment | Reason, **changes: Any
) -> ReportRequest:
    """Write a header as the received file ``path`` and ask for its report."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    values: dict[str, Any] = {
        "path": path,
        "content_sha256": "ab" * 32,
        "finding": finding,
        "language": "pt-BR",
        "reported_at": REPORTED_AT,
    }
    return ReportRequest(**{**values, **changes})


def previous(objects: tuple[ReportObject, ...], *, revision: int = 1) -> PreviousReport:
    """These objects as the last report about :func:`radiograph`."""
    study = str(radiograph().StudyInstanceUID)
    return PreviousReport(revision=revision, study_instance_uid=study, objects=objects)


def read(report: ReportObject) -> Dataset:
    """A report object as a data set."""
    return dcmread(BytesIO(report.encoded))


def hand(**values: Any) -> Dataset:
    """A radiograph with pixels."""
    dataset = radiograph()
    dataset.Rows, dataset.Columns = 320, 260
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.linspace(0, 4095, 320 * 260).astype(np.uint16).tobytes()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def built(request: ReportRequest) -> dict[ReportKind, ReportObject]:
    return {made.kind: made for made in SrReporter().build(request)}


def prior(months: float, **changes: Any) -> PriorResult:
    values: dict[str, Any] = {
        "study_date": date(2021, 7, 1),
        "chronological_age_months": 138.0,
        "bone_age_months": months,
        "model": assessment().prediction.model,
    }
    return PriorResult(**{**values, **changes})


def items(dataset: Dataset) -> list[Dataset]:
    """All content items below, depth first."""
    below = []
    for item in dataset.get("ContentSequence", []):
        below += [item, *items(item)]
    return below


def texts(dataset: Dataset) -> str:
    """All TEXT values of a content tree, depth first, a line each."""
    return "\n".join(item.TextValue for item in items(dataset) if "TextValue" in item)


def group_of(report: ReportObject) -> Any:
    content = srread(BytesIO(report.encoded)).content
    assert isinstance(content, MeasurementReport)
    (group,) = content.get_planar_roi_measurement_groups()
    return group


def numbers(report: ReportObject) -> dict[str, tuple[float, str]]:
    return {
        measurement.name.value: (measurement.value, measurement.unit.value)
        for measurement in group_of(report).get_measurements()
    }
