"""DICOM files (PS3.10) for tests: a small hand radiograph and whatever is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)


def hand_dataset(*, side_pixels: int = 64, **values: Any) -> Dataset:
    """A CR of a hand, 12 bits in 16, with new UIDs; ``values`` are set by keyword on top."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "CR"
    dataset.PatientName = "ZZCANARY^TEST"
    dataset.PatientID = "ZZCANARY"
    dataset.PatientSex = "F"
    dataset.PatientBirthDate = "20160302"
    dataset.StudyDate = "20260302"
    dataset.BodyPartExamined = "HAND"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = side_pixels
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    ramp = np.linspace(0, 4095, side_pixels * side_pixels).astype(np.uint16)
    dataset.PixelData = ramp.tobytes()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def write_file(
    path: Path, dataset: Dataset, *, transfer_syntax_uid: UID = ExplicitVRLittleEndian
) -> Path:
    """Write a data set, which must be encoded accordingly, as a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.save_as(path, enforce_file_format=True)
    return path


def data_set_bytes(path: Path) -> bytes:
    """The bytes behind preamble, prefix and file meta information (PS3.10 7.1)."""
    content = path.read_bytes()
    group_length = int.from_bytes(content[140:144], "little")
    return content[144 + group_length :]


def raw_file(
    path: Path,
    content: bytes,
    *,
    sop_class_uid: str = ComputedRadiographyImageStorage,
    sop_instance_uid: str = "1.2.3.4",
) -> Path:
    """A file whose meta information, and so the C-STORE command, says what we like."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, meta, enforce_standard=False)
    path.write_bytes(head.getvalue() + content)
    return path
