"""What a report says, as frozen plain values. Ages, differences and standard deviations in
months."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


class InvalidContent(ValueError):
    """The content cannot be reported as it stands. The message holds no patient data."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The software that speaks in the report (PS3.3 C.7.5.2)."""

    name: str
    """Name of this installation; also its Device Serial Number (0018,1000)."""
    manufacturer: str
    model_name: str
    software_version: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which weights made the estimate."""

    name: str
    version: str
    sha256: str

    def __post_init__(self) -> None:
        if not (self.name and self.version and self.sha256):
            raise InvalidContent("the model has no complete identity: name, version and SHA-256")


@dataclass(frozen=True, kw_only=True)
class Box:
    """Edges of the hand in source-image pixels, origin at the top left corner of the image
    (PS3.3 C.18.6.1.2)."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Where the model looked: rows of ``levels`` 0..255, 255 most, spread evenly over ``box``."""

    box: Box
    levels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Prior:
    """An earlier result of the same patient. Ages in months; None: not known."""

    study_date: date
    months_before: float
    """From its study to that of the report."""
    chronological_age_months: float | None
    bone_age_months: float
    same_model: bool


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """A document of the report that this one replaces. ``kind``: name of its DocumentKind."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What every report says. ``reported_at``: aware, in the time zone in which it is to be
    stated."""

    device: Device
    content_sha256: str
    """SHA-256 of the source data set; one input of the report's UIDs."""
    language: str
    """``pt-BR`` or ``en``: a file of ``sr_templates/text``."""
    reported_at: datetime
    synthetic: bool
    """The source says Synthetic Data (0008,001C) = YES."""
    revision: int = 1
    """Counts the reports about one image; more than 1 replaces ``predecessors``."""
    predecessors: tuple[Predecessor, ...] = ()
    keep_character_set: bool = False
    """Encode texts as the source does, where that has all their characters; else UTF-8."""

    def __post_init__(self) -> None:
        if self.reported_at.tzinfo is None:
            raise InvalidContent("reported_at has no time zone: give an aware time")


@dataclass(frozen=True, kw_only=True)
class AssessedContent(ReportContent):
    """A bone age and everything that qualifies it. None: not known or outside the reference
    table."""

    model: Model
    hand_box: Box
    saliency: Heatmap | None
    """For the picture only; None where the model's look was not kept."""
    bone_age_months: float
    sd_months: float
    """The model's predictive standard deviation; not that of the population."""
    sex: str
    """``F`` or ``M``."""
    laterality: str
    """``L``, ``R`` or ``U`` (not stated)."""
    view_position: str
    """View Position (0018,5101), or ""."""
    chronological_age_months: float | None
    difference_months: float | None
    population_sd_months: float | None
    z_score: float | None
    determination: str
    """A key of ``determination`` in ``sr_templates/text``."""
    reference_id: str
    reference_title: str
    reference_sd_months: tuple[tuple[float, float], ...]
    """Rows of the reference table for this sex: chronological age and population SD."""
    notes: tuple[str, ...]
    """Keys of ``note`` in ``sr_templates/text``."""
    priors: tuple[Prior, ...] = ()
    """Oldest first."""


@dataclass(frozen=True, kw_only=True)
class NotAssessedContent(ReportContent):
    """No bone age, because: ``reason`` is a key of ``reason`` in ``sr_templates/text``."""

    reason: str
