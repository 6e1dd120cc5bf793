"""pydicom Dataset -> Header: the one mapping from tags to our words. Tolerant on reading.

pydicom quotes values in its warnings and log lines; both are switched off while it reads.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from dicom_node.domain.assessment import DAYS_PER_MONTH
from dicom_node.domain.audit import Subject
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Header, Laterality
from dicom_node.domain.receipt import Identity

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_T = TypeVar("_T")
_SOP_INSTANCE_UID = Tag("SOPInstanceUID")
_MAX_VALUE_BYTES = 65_536
"""Longer values of the attributes below are no honest header; converting them can take minutes."""
_HEAD_BYTES = 65_536
"""What is read of an object to say whose it is: some thousand elements at most."""
_STUDY_INSTANCE_UID = Tag("StudyInstanceUID")
_SUBJECT_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "StudyInstanceUID")
]
_MONTHS_PER_UNIT = {"D": 1 / DAYS_PER_MONTH, "W": 7 / DAYS_PER_MONTH, "M": 1.0, "Y": 12.0}
_DATE = re.compile(r"(\d{4})([.\-/]?)(\d{2})\2(\d{2})")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_SIDES = {
    "L": Laterality.LEFT,
    "LEFT": Laterality.LEFT,
    "R": Laterality.RIGHT,
    "RIGHT": Laterality.RIGHT,
    "B": Laterality.BOTH,
    "BOTH": Laterality.BOTH,
    "U": Laterality.UNSTATED,
}
_DESCRIPTIONS = (
    "ProtocolName",
    "StudyDescription",
    "SeriesDescription",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
_DATES = ("StudyDate", "AcquisitionDate", "ContentDate")
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "ContributingEquipmentSequence",
    "ImageType",
    "ConversionType",
    "BurnedInAnnotation",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "ViewPosition",
    "ViewCodeSequence",
    "ImageLaterality",
    "Laterality",
    "PatientSex",
    "PatientBirthDate",
    "PatientAge",
    "PatientID",
    "IssuerOfPatientID",
    *_DESCRIPTIONS,
    *_DATES,
)
_TAGS: list[BaseTag] = [Tag(keyword) for keyword in _KEYWORDS]
_tag = cache(Tag)
_pydicom_logger = logging.getLogger("pydicom")
_quiet_lock = threading.Lock()


def read_header(path: Path) -> Header:
    """Read the header of a DICOM file (PS3.10), without its pixels.

    Raises ``Permanent`` (UNREADABLE_OBJECT) when it is no SOP instance or its structure is broken,
    ``Transient`` (STORAGE_UNAVAILABLE) when the disk does not give it. Single attributes that
    cannot be read are named in ``Header.invalid``.
    """
    return _read(path, _header)


def read_identity(path: Path) -> Identity:
    """Read the SOP Class and SOP Instance UID of the data set and the transfer syntax of its file
    meta information; not more than the file's head, whatever its size.

    Raises as :func:`read_header`; a data set without these UIDs is unreadable.
    """
    return _read(path, _identity)


def read_subject(path: Path) -> Subject:
    """Study and patient of a DICOM file, for the audit trail; not more than the file's head.

    Nothing of it decides anything: what cannot be read is "", and nothing is raised.
    """
    try:
        with path.open("rb") as file:
            return subject_in(file.read(_HEAD_BYTES))
    except OSError:
        return Subject()


def subject_in(encoded: bytes) -> Subject:
    """As :func:`read_subject`, for the bytes of a DICOM file."""
    try:
        with _quiet():
            return _subject(BytesIO(encoded[:_HEAD_BYTES]))
    except Exception:  # noqa: BLE001  hostile bytes raise anything in pydicom
        return Subject()


def _read(path: Path, parse: Callable[[BinaryIO], _T]) -> _T:
    try:
        with path.open("rb") as file, _quiet():
            return parse(file)
    except Exception as error:  # noqa: BLE001  hostile bytes raise anything in pydicom
        if isinstance(error, OSError) and error.errno is not None:
            raise Transient(
                Fault.STORAGE_UNAVAILABLE, f"{path.name}: cannot be read: {error.strerror}"
            ) from None
        raise Permanent(
            Fault.UNREADABLE_OBJECT,
            f"{path.name}: is not a readable DICOM file ({type(error).__name__}): "
            "have it sent again or check the sender",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings and log lines. The lock is there because both belong to all threads."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _pydicom_logger.disabled = True
        try:
            yield
        finally:
            _pydicom_logger.disabled = False


def _identity(file: BinaryIO) -> Identity:
    def behind_head(tag: BaseTag, _vr: str | None, length: int) -> bool:
        return tag > _SOP_INSTANCE_UID or length > _MAX_VALUE_BYTES

    dataset = read_partial(file, behind_head, specific_tags=[Tag("SOPClassUID"), _SOP_INSTANCE_UID])
    return Identity(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
    )


def _subject(head: BytesIO) -> Subject:
    def behind_head(tag: BaseTag, _vr: str | None, length: int) -> bool:
        return tag > _STUDY_INSTANCE_UID or length > _HEAD_BYTES

    dataset = read_partial(head, behind_head, specific_tags=_SUBJECT_TAGS)
    read = _Attributes(dataset, invalid=[])
    return Subject(
        study_instance_uid=read.text("StudyInstanceUID"),
        patient_id=read.text("PatientID"),
        patient_name=read.text("PatientName"),
    )


def _header(file: BinaryIO) -> Header:
    read = _Attributes(
        pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS), invalid=[]
    )
    sop_class_uid = read.text("SOPClassUID")
    if not sop_class_uid:
        raise ValueError("no SOP instance")
    return Header(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=read.text("SOPInstanceUID"),
        study_instance_uid=read.text("StudyInstanceUID"),
        series_instance_uid=read.text("SeriesInstanceUID"),
        modality=read.text("Modality").upper(),
        manufacturer=read.text("Manufacturer"),
        manufacturer_model_name=read.text("ManufacturerModelName"),
        contributing_equipment=read.in_items(
            "ContributingEquipmentSequence", lambda item: item.text("ManufacturerModelName")
        ),
        image_type=tuple(value.upper() for value in read.values("ImageType")),
        conversion_type=read.text("ConversionType").upper(),
        burned_in_annotation=read.text("BurnedInAnnotation").upper(),
        photometric_interpretation=read.text("PhotometricInterpretation").upper(),
        samples_per_pixel=read.number("SamplesPerPixel"),
        number_of_frames=read.number("NumberOfFrames"),
        rows=read.number("Rows"),
        columns=read.number("Columns"),
        body_part_examined=read.text("BodyPartExamined"),
        anatomic_region_codes=read.in_items("AnatomicRegionSequence", _Attributes.code),
        descriptions=tuple(filter(None, map(read.text, _DESCRIPTIONS))),
        view_position=read.text("ViewPosition"),
        view_codes=read.in_items("ViewCodeSequence", _Attributes.code),
        laterality=read.side("ImageLaterality") or read.side("Laterality") or Laterality.UNSTATED,
        sex=read.text("PatientSex").upper(),
        birth_date=read.day("PatientBirthDate"),
        study_date=next(filter(None, map(read.day, _DATES)), None),
        patient_age_months=read.age_months("PatientAge"),
        patient_id=read.text("PatientID"),
        issuer_of_patient_id=read.text("IssuerOfPatientID"),
        invalid=tuple(dict.fromkeys(read.invalid)),
    )


class _Attributes:
    """One data set's attributes as plain values; what cannot be read is noted in ``invalid``."""

    def __init__(self, dataset: Dataset, *, invalid: list[str]) -> None:
        self._dataset = dataset
        self.invalid = invalid

    def values(self, keyword: str) -> tuple[str, ...]:
        """All values of an attribute, stripped, without empty ones."""
        texts = (str(value).strip(" \0\t\r\n") for value in self._raw(keyword))
        return tuple(text for text in texts if text)

    def text(self, keyword: str) -> str:
        """The values in one text, joined as in the file."""
        return "\\".join(self.values(keyword))

    def number(self, keyword: str) -> int | None:
        """A single whole number."""
        return self._parsed(keyword, int)

    def day(self, keyword: str) -> date | None:
        """A date as YYYYMMDD, or with separators as old devices write it."""
        return self._parsed(keyword, _day)

    def age_months(self, keyword: str) -> float | None:
        """An age such as 012Y (VR AS) in months."""
        return self._parsed(keyword, _age_months)

    def side(self, keyword: str) -> Laterality | None:
        """A laterality, None when the attribute states no side: absent, U or unreadable."""
        return self._parsed(keyword, _side)

    def code(self) -> str:
        """``scheme:value`` of a code item (PS3.3 8.8)."""
        return f"{self.text('CodingSchemeDesignator')}:{self.text('CodeValue')}"

    def in_items(self, keyword: str, read: Callable[[_Attributes], str]) -> tuple[str, ...]:
        """What ``read`` finds in each item of a sequence."""
        items = [item for item in self._raw(keyword) if isinstance(item, Dataset)]
        return tuple(read(_Attributes(item, invalid=self.invalid)) for item in items)

    def _raw(self, keyword: str) -> Sequence[Any]:
        try:
            tag = _tag(keyword)
            raw = self._dataset.get_item(tag)
            if raw is None:
                return ()
            if getattr(raw, "length", 0) > _MAX_VALUE_BYTES:
                raise ValueError(keyword)
            value = self._dataset[tag].value
        except Exception:  # noqa: BLE001  one broken attribute must not hide the others
            self.invalid.append(keyword)
            return ()
        if value is None:
            return ()
        return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)

    def _parsed(self, keyword: str, parse: Callable[[str], _T]) -> _T | None:
        text = self.text(keyword)
        if not text:
            return None
        try:
            return parse(text)
        except (KeyError, ValueError, TypeError):
            self.invalid.append(keyword)
            return None


def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date")
    year, _, month, day = match.groups()
    return date(int(year), int(month), int(day))


def _side(text: str) -> Laterality | None:
    sides = {_SIDES[word] for word in text.upper().split("\\")} - {Laterality.UNSTATED}
    return Laterality.BOTH if len(sides) > 1 else next(iter(sides), None)


def _age_months(text: str) -> float:
    match = _AGE.fullmatch(text.upper())
    if match is None:
        raise ValueError("no age")
    return int(match[1]) * _MONTHS_PER_UNIT[match[2]]
