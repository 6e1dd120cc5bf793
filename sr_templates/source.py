"""What a report takes from its source image: identity, references and geometry. Tolerant on read:
attributes that are missing or unreadable become empty where the standard allows it (PS3.3 Type
2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

_REPEATED = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID")
"""Repeated as they are, even longer than their VR allows: archives match the report by them."""

_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_MAX_CHARACTERS = 1024
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class UnusableSource(ValueError):
    """No report can refer to this object. The message names attributes, never their values."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source image as the report needs it. ``rows``, ``columns``: 0 where unknown."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    rows: int
    columns: int
    orientation: tuple[str, str] | None
    """Patient Orientation (0020,0020) of rows and columns."""
    spacing_mm: tuple[float, float] | None
    """Imager Pixel Spacing (0018,1164): between rows, between columns."""
    synthetic: bool
    """Synthetic Data (0008,001C) is YES."""
    utc_offset: timedelta | None
    """Timezone Offset From UTC (0008,0201)."""
    character_set: tuple[str, ...]
    """Specific Character Set (0008,0005)."""
    laterality: str
    """Image Laterality (0020,0062) or Laterality (0020,0060) if it is L or R, else ""."""
    identity: Dataset
    """Patient and study attributes that the report repeats, Type 2 attributes always present
    (PS3.3 C.7.1.1, C.7.2.1)."""

    def local(self, moment: datetime) -> datetime:
        """The moment in the source's time zone if it states one, else in the zone it came in."""
        if self.utc_offset is None:
            return moment
        return moment.astimezone(timezone(self.utc_offset))


def read_source(dataset: Dataset) -> Source:
    """Take what the report needs; ``dataset`` keeps its values.

    Raises :class:`UnusableSource` without valid UIDs, or when a name or identifier cannot be
    repeated: characters outside its character set, control characters, or more than 1024.
    """
    return Source(
        sop_class_uid=_uid(dataset, "SOPClassUID"),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
        study_instance_uid=_uid(dataset, "StudyInstanceUID"),
        series_instance_uid=_uid(dataset, "SeriesInstanceUID"),
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        orientation=_orientation(dataset),
        spacing_mm=_spacing_mm(dataset),
        synthetic=_text(dataset, "SyntheticData") == "YES",
        utc_offset=_utc_offset(dataset),
        character_set=tuple(_texts(dataset, "SpecificCharacterSet")),
        laterality=_laterality(dataset),
        identity=_identity(dataset),
    )


def _identity(dataset: Dataset) -> Dataset:
    identity = Dataset()
    for keyword in _TYPE_2:
        setattr(identity, keyword, "")
    for keyword in _REPEATED:
        text = _text(dataset, keyword)
        _refuse_unrepeatable(keyword, text)
        if text:
            setattr(identity, keyword, text)
    for keyword, is_valid in _CHECKED.items():
        text = _text(dataset, keyword)
        if is_valid(text):
            setattr(identity, keyword, text)
    return identity


def _refuse_unrepeatable(keyword: str, text: str) -> None:
    if _UNREADABLE in text:
        raise UnusableSource(
            f"{keyword} cannot be read with its Specific Character Set (0008,0005): "
            "correct the character set at the sender"
        )
    if not _is_plain(text, _MAX_CHARACTERS):
        raise UnusableSource(
            f"{keyword} holds control characters or more than {_MAX_CHARACTERS} characters: "
            "correct it at the sender"
        )


def _is_plain(text: str, limit: int) -> bool:
    return len(text) <= limit and not any(unicodedata.category(c) == "Cc" for c in text)


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{8}", text)) and _is_read_by(DA, text)


def _is_time(text: str) -> bool:
    return bool(re.fullmatch(r"\d{2,6}(\.\d{1,6})?", text)) and _is_read_by(TM, text)


def _is_read_by(form: Callable[[str], object], text: str) -> bool:
    try:
        form(text)
    except ValueError:
        return False
    return True


def _is_description(text: str) -> bool:
    return bool(text) and _UNREADABLE not in text and _is_plain(text, 64)


def _is_offset(text: str) -> bool:
    return bool(re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", text))


_CHECKED: dict[str, Callable[[str], bool]] = {
    "PatientBirthDate": _is_date,
    "PatientSex": lambda text: text in ("F", "M", "O"),
    "PatientAge": lambda text: bool(re.fullmatch(r"\d{3}[DWMY]", text)),
    "StudyDate": _is_date,
    "StudyTime": _is_time,
    "StudyDescription": _is_description,
    "ReferringPhysicianName": _is_description,
    "TimezoneOffsetFromUTC": _is_offset,
}
"""Repeated only when valid."""


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values as stripped texts; empty where there are none or they cannot be read."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        return [_UNREADABLE]
    if value is None:
        return []
    values = value if isinstance(value, MultiValue) else [value]
    return [_UNREADABLE if isinstance(v, bytes) else str(v).strip() for v in values]


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_texts(dataset, keyword))


def _uid(dataset: Dataset, keyword: str) -> str:
    text = _text(dataset, keyword)
    if not re.fullmatch(r"[0-9.]{1,64}", text):
        raise UnusableSource(f"{keyword} is missing or no UID: a report cannot refer to this image")
    return text


def _count(dataset: Dataset, keyword: str) -> int:
    text = _text(dataset, keyword)
    return int(text) if re.fullmatch(r"\d{1,6}", text) else 0


def _laterality(dataset: Dataset) -> str:
    sides = (_text(dataset, keyword) for keyword in ("ImageLaterality", "Laterality"))
    return next((side for side in sides if side in ("L", "R")), "")


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    match _texts(dataset, "PatientOrientation"):
        case [row, column] if re.fullmatch(r"[A-Z]{1,4}/[A-Z]{1,4}", f"{row}/{column}"):
            return row, column
    return None


def _spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    match _texts(dataset, "ImagerPixelSpacing"):
        case [row, column] if _is_spacing(row) and _is_spacing(column):
            return float(row), float(column)
    return None


def _is_spacing(text: str) -> bool:
    return bool(re.fullmatch(r"\d{0,3}\.?\d{1,12}", text)) and float(text) > 0


def _utc_offset(dataset: Dataset) -> timedelta | None:
    text = _text(dataset, "TimezoneOffsetFromUTC")
    if not _is_offset(text):
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return -offset if text[0] == "-" else offset
