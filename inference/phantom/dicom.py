"""Drawn radiographs as DICOM objects that say they are synthetic."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from inference.phantom.exams import PhantomExam
from inference.phantom.exposure import MAX_GREY
from inference.phantom.maturation import Sex
from inference.phantom.radiograph import COLUMNS, ROWS, draw

Modality = Literal["CR", "DX"]

PATIENT_NAME = "PHANTOM^SYNTHETIC"
INSTITUTION_NAME = "Synthetic Phantom Hospital"
COMMENT = "SYNTHETIC PHANTOM, DRAWN BY SOFTWARE - NOT A PATIENT, NOT FOR DIAGNOSIS"

_NAMESPACE = uuid.UUID("6f1e6f0c-52a5-5b0e-9d0b-0a9d5b8f4c1e")
_STUDY_TIME = "101500"
_SOP_CLASSES: Mapping[Modality, UID] = MappingProxyType(
    {"CR": ComputedRadiographyImageStorage, "DX": DigitalXRayImageStorageForPresentation}
)


def to_dataset(
    pixels: NDArray[np.uint16],
    *,
    sex: Sex,
    birth_date: date,
    study_date: date,
    pixel_spacing_mm: float,
    seed: int,
    modality: Modality = "DX",
    patient_name: str = PATIENT_NAME,
    patient_id: str | None = None,
    institution_name: str = INSTITUTION_NAME,
) -> Dataset:
    """Wrap a radiograph as a DX For Presentation (PS3.3 A.26) or CR (PS3.3 A.2) image.

    ``pixels``: uint16, shape (Rows, Columns), 0..4095, bright bones. UIDs (UUIDv5 under 2.25)
    derive from the arguments: equal ones give an equal object, any other gives another object.
    ``patient_id`` is made from the seed unless given. Raises ``ValueError`` for other pixels.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint16 or pixels.max() > MAX_GREY:
        raise ValueError(
            f"expected uint16 (Rows, Columns) of 12 bits, got {pixels.dtype}, "
            f"shape {pixels.shape}: draw it with inference.phantom.radiograph.draw"
        )
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    identity = f"{modality} {seed} {sex} {birth_date} {study_date} {pixels.shape} {digest}"
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    _add_sop(ds, modality, identity)
    _add_study(ds, identity, study_date, institution_name)
    _add_patient(ds, sex, birth_date, patient_name, patient_id or f"PHANTOM-{seed:06d}")
    _add_series(ds, modality, identity)
    _add_image(ds, pixels, pixel_spacing_mm)
    (_add_dx if modality == "DX" else _add_cr)(ds, pixel_spacing_mm)
    return ds


def write_radiograph(
    path: Path,
    exam: PhantomExam,
    *,
    modality: Modality = "DX",
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Dataset:
    """Draw an exam and write it as a DICOM file (PS3.10); returns what was written."""
    radiograph = draw(
        bone_age_months=exam.bone_age_months,
        sex=exam.sex,
        seed=exam.seed,
        rows=rows,
        columns=columns,
    )
    ds = to_dataset(
        radiograph.pixels,
        sex=exam.sex,
        birth_date=exam.birth_date,
        study_date=exam.study_date,
        pixel_spacing_mm=radiograph.pixel_spacing_mm,
        seed=exam.seed,
        modality=modality,
    )
    ds.save_as(path, enforce_file_format=True)
    return ds


def _uid(kind: str, identity: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, f'{kind} {identity}').int}")


def _code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    """Code Sequence Macro (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _add_sop(ds: Dataset, modality: Modality, identity: str) -> None:
    """SOP Common (PS3.3 C.12.1) and the file meta information (PS3.10 7.1)."""
    ds.SOPClassUID = _SOP_CLASSES[modality]
    ds.SOPInstanceUID = _uid("instance", identity)
    ds.SyntheticData = "YES"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta = meta


def _add_patient(ds: Dataset, sex: Sex, birth_date: date, name: str, patient_id: str) -> None:
    """Patient (PS3.3 C.7.1.1)."""
    ds.PatientName = name
    ds.PatientID = patient_id
    ds.PatientBirthDate = birth_date.strftime("%Y%m%d")
    ds.PatientSex = sex


def _add_study(ds: Dataset, identity: str, study_date: date, institution_name: str) -> None:
    """General Study (PS3.3 C.7.2.1), General Equipment (C.7.5.1) and the dates."""
    day = study_date.strftime("%Y%m%d")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = _STUDY_TIME
    ds.StudyInstanceUID = _uid("study", identity)
    ds.StudyID = "1"
    ds.AccessionNumber = f"P{uuid.UUID(int=int(ds.StudyInstanceUID[5:])).hex[:12]}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "HAND PA LEFT, BONE AGE"
    ds.InstitutionName = institution_name
    ds.Manufacturer = "Synthetic"
    ds.ManufacturerModelName = "hand-phantom"
    ds.SoftwareVersions = "1"


def _add_series(ds: Dataset, modality: Modality, identity: str) -> None:
    """General Series (PS3.3 C.7.3.1) with the hand and the view."""
    ds.Modality = modality
    ds.SeriesInstanceUID = _uid("series", identity)
    ds.SeriesNumber = 1
    ds.SeriesDescription = "HAND PA LEFT (SYNTHETIC)"
    ds.ProtocolName = "HAND PA"
    ds.BodyPartExamined = "HAND"
    ds.ViewPosition = "PA"
    ds.ImageLaterality = "L"


def _add_image(ds: Dataset, pixels: NDArray[np.uint16], pixel_spacing_mm: float) -> None:
    """General Image (PS3.3 C.7.6.1), Image Pixel (C.7.6.3) and VOI LUT (C.11.2)."""
    ds.InstanceNumber = 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PatientOrientation = ["L", "H"]  # rows run to the thumb, columns to the elbow
    ds.ImageComments = COMMENT
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.PixelSpacing = [f"{pixel_spacing_mm:.6f}"] * 2
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    ds.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()


def _add_dx(ds: Dataset, pixel_spacing_mm: float) -> None:
    """DX Series, DX Anatomy Imaged, DX Image, DX Detector, DX Positioning (PS3.3 C.8.11)."""
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.AnatomicRegionSequence = [_code("85562004", "Hand")]
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.PresentationLUTShape = "IDENTITY"
    ds.ImagerPixelSpacing = [f"{pixel_spacing_mm:.6f}"] * 2
    ds.DetectorType = "SCINTILLATOR"
    ds.DetectorConfiguration = "AREA"
    ds.PositionerType = "NONE"
    ds.ViewCodeSequence = [_code("399348003", "postero-anterior")]
    ds.AcquisitionContextSequence = []


def _add_cr(ds: Dataset, pixel_spacing_mm: float) -> None:
    """CR Image (PS3.3 C.8.1.2)."""
    ds.ImagerPixelSpacing = [f"{pixel_spacing_mm:.6f}"] * 2
    ds.PlateType = "IMAGING PLATE"
