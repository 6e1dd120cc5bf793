"""The same image as an exam of its own: a copy of a DICOM file under new UIDs."""

from __future__ import annotations

import uuid
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

_RENEWED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def new_uid(uid: str, salt: uuid.UUID) -> UID:
    """Another UID (PS3.5 B.2); objects that shared the old one share the new one."""
    return UID(f"2.25.{uuid.uuid5(salt, uid).int}")


def write_renewed(source: Path, target: Path, salt: uuid.UUID) -> None:
    """Write a copy whose study, series and SOP instance have other UIDs.

    Pixels, and what follows them, are copied byte by byte, other elements as they are encoded.
    ``salt``: another one gives other UIDs. Raises what pydicom raises for broken files, and
    ``ValueError`` for a deflated one, whose bytes cannot be copied in part.
    """
    with source.open("rb") as file:
        dataset = dcmread(file, stop_before_pixels=True)
        if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            raise ValueError("a deflated data set cannot be sent under new UIDs")
        for keyword in _RENEWED:
            if keyword in dataset:
                setattr(dataset, keyword, new_uid(dataset[keyword].value, salt))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target)
        with target.open("ab") as copy:
            while chunk := file.read(1 << 20):
                copy.write(chunk)
