"""Values about what was received: instances, headers and exams."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

UNKNOWN_SENDER = "unknown"
"""Calling AE title, address and institution of an object whose sender a crash made the node forget;
the sender's next attempt fills them in."""


class Sex(StrEnum):
    """Patient's Sex (0010,0040) as the model needs it."""

    FEMALE = "F"
    MALE = "M"


class Laterality(StrEnum):
    """Image Laterality (0020,0062); UNSTATED where the header says nothing."""

    LEFT = "L"
    RIGHT = "R"
    BOTH = "B"
    UNSTATED = "U"


class Outcome(StrEnum):
    """What became of an exam."""

    PENDING = "pending"
    ASSESSED = "assessed"
    NOT_ASSESSED = "not_assessed"
    IGNORED = "ignored"


class Receipt(StrEnum):
    """What the ledger did with an instance that arrived."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One received SOP instance, as the spool and the association know it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    content_sha256: str
    size_bytes: int
    calling_ae_title: str
    peer_address: str
    institution_id: str
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class Header:
    """The few attributes that screening and the report read, as plain values (PS3.3 C.7, C.8.11).

    Texts are stripped; a missing or empty text is "". Dates that cannot be read are None and named
    in ``invalid``.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    contributing_equipment: tuple[str, ...] = ()
    """Manufacturer's Model Name of each item of Contributing Equipment Sequence (0018,A001)."""
    image_type: tuple[str, ...] = ()
    conversion_type: str = ""
    burned_in_annotation: str = ""
    photometric_interpretation: str = ""
    samples_per_pixel: int | None = None
    number_of_frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    body_part_examined: str = ""
    anatomic_region_codes: tuple[str, ...] = ()
    """``scheme:value`` of each item of Anatomic Region Sequence (0008,2218)."""
    descriptions: tuple[str, ...] = ()
    """Protocol, study, series and procedure texts, in that order, without empty ones."""
    view_position: str = ""
    view_codes: tuple[str, ...] = ()
    """``scheme:value`` of each item of View Code Sequence (0054,0220)."""
    laterality: Laterality = Laterality.UNSTATED
    sex: str = ""
    birth_date: date | None = None
    study_date: date | None = None
    """Study Date, else Acquisition Date, else Content Date."""
    patient_age_months: float | None = None
    """Patient's Age (0010,1010), coarse; only compared with the dates."""
    patient_id: str = field(default="", repr=False)
    """For the pseudonym only; never stored, printed or logged."""
    issuer_of_patient_id: str = field(default="", repr=False)
    invalid: tuple[str, ...] = ()
    """Keywords of attributes that are present but unreadable."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """The work for one hand radiograph."""

    exam_id: int
    instance: Instance
    study_instance_uid: str
    outcome: Outcome
    reason: str | None
    notes: tuple[str, ...]
