"""From a model's months to what the report says: age, difference, Z-score, determination. Pure
functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import pairwise

from dicom_node.domain.exam import Laterality, Sex

DAYS_PER_MONTH = 30.436875
"""Mean length of a month of the Gregorian calendar, for the days beyond the full months."""


class Determination(StrEnum):
    """Bone age against the reference: within or beyond two standard deviations of the chronological
    age."""

    NORMAL = "normal"
    DELAYED = "delayed"
    ADVANCED = "advanced"
    OUTSIDE_REFERENCE = "outside_reference"
    NO_CHRONOLOGICAL_AGE = "no_chronological_age"


class Note(StrEnum):
    """What the reader of the report must know about an exam that was assessed."""

    AGE_DISAGREES = "age_disagrees"
    BIRTH_DATE_MISSING = "birth_date_missing"
    BODY_PART_UNSTATED = "body_part_unstated"
    GREY_SCALE_INVERTED = "grey_scale_inverted"
    IMAGE_TURNED = "image_turned"
    LATERALITY_UNSTATED = "laterality_unstated"
    RIGHT_HAND = "right_hand"
    STUDY_DATE_MISSING = "study_date_missing"
    TWO_HANDS_LEFT_ASSESSED = "two_hands_left_assessed"
    VIEW_UNSTATED = "view_unstated"


_SIDE_NOTES = (Note.RIGHT_HAND, Note.LATERALITY_UNSTATED)


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which weights made a prediction."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class HandBox:
    """Bounding box of the hand in source-image pixel coordinates, edges, origin at the top left
    (PS3.3 C.10.5.1.2)."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Which places moved the result: rows of ``levels`` 0..255, 255 the strongest, spread evenly
    over ``box``, both as the source image lies."""

    box: HandBox
    levels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Immutable model output with its identity: mean and predictive SD of the bone age in months,
    and what was found in the pixels."""

    bone_age_months: float
    sd_months: float
    hand_box: HandBox
    findings: tuple[Note, ...]
    saliency: Saliency | None
    """None in predictions of versions that did not keep it."""
    model: ModelIdentity


@dataclass(frozen=True, kw_only=True)
class PriorResult:
    """What was assessed of the same patient before. Ages in months."""

    study_date: date
    chronological_age_months: float | None
    bone_age_months: float
    model: ModelIdentity


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """A named table of population SDs by sex and chronological age, both in months, ages
    ascending."""

    table_id: str
    title: str
    citation: str
    sd_months: Mapping[Sex, tuple[tuple[float, float], ...]]

    def sd_at(self, sex: Sex, chronological_age_months: float) -> float | None:
        """Population SD in months at an age, interpolated between rows; None outside the table."""
        rows = self.sd_months[sex]
        if not rows[0][0] <= chronological_age_months <= rows[-1][0]:
            return None
        for (age, sd), (next_age, next_sd) in pairwise(rows):
            if chronological_age_months <= next_age:
                return sd + (next_sd - sd) * (chronological_age_months - age) / (next_age - age)
        return None


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Everything the report states about an assessed exam. Ages, differences and SDs in months."""

    prediction: Prediction
    sex: Sex
    laterality: Laterality
    view_position: str
    chronological_age_months: float | None
    difference_months: float | None
    population_sd_months: float | None
    z_score: float | None
    determination: Determination
    reference_id: str
    reference_title: str
    reference_sd_months: tuple[tuple[float, float], ...]
    """Rows of the reference table for this sex: chronological age and population SD."""
    notes: tuple[Note, ...]
    study_date: date | None
    priors: tuple[PriorResult, ...]
    """Oldest first."""


def age_in_months(birth: date, on: date) -> float:
    """Full calendar months and the days beyond them as a fraction. ``on`` must not lie before
    ``birth``."""
    months = (on.year - birth.year) * 12 + on.month - birth.month
    days = on.day - birth.day
    if days < 0:
        months -= 1
        days += _days_in_previous_month(on)
    return months + max(0, days) / DAYS_PER_MONTH


def assess(
    prediction: Prediction,
    *,
    sex: Sex,
    laterality: Laterality,
    view_position: str,
    chronological_age_months: float | None,
    reference: ReferenceTable,
    notes: tuple[Note, ...],
    study_date: date | None = None,
    priors: tuple[PriorResult, ...] = (),
) -> Assessment:
    """Compare a prediction with the chronological age; no extrapolation outside the reference
    table. ``laterality`` and ``notes`` are the header's."""
    difference = None
    population_sd = None
    z_score = None
    if chronological_age_months is not None:
        difference = prediction.bone_age_months - chronological_age_months
        population_sd = reference.sd_at(sex, chronological_age_months)
        z_score = None if population_sd is None else difference / population_sd
    return Assessment(
        prediction=prediction,
        sex=sex,
        laterality=assessed_side(laterality, prediction.findings),
        view_position=view_position,
        chronological_age_months=chronological_age_months,
        difference_months=difference,
        population_sd_months=population_sd,
        z_score=z_score,
        determination=_determination(chronological_age_months, z_score),
        reference_id=reference.table_id,
        reference_title=reference.title,
        reference_sd_months=tuple(reference.sd_months[sex]),
        notes=notes_for_reader(notes, prediction.findings),
        study_date=study_date,
        priors=priors,
    )


def assessed_side(stated: Laterality, findings: tuple[Note, ...]) -> Laterality:
    """Which hand was assessed: of two hands the left one, of one hand the side that the header
    states. A header that says both says nothing of one hand."""
    if Note.TWO_HANDS_LEFT_ASSESSED in findings:
        return Laterality.LEFT
    return Laterality.UNSTATED if stated is Laterality.BOTH else stated


def notes_for_reader(stated: tuple[Note, ...], findings: tuple[Note, ...]) -> tuple[Note, ...]:
    """The header's notes, then what was found in the pixels. Of two hands the side is known: what
    the header made us note about it does not hold."""
    if Note.TWO_HANDS_LEFT_ASSESSED in findings:
        stated = tuple(note for note in stated if note not in _SIDE_NOTES)
    return stated + findings


def _determination(chronological_age_months: float | None, z_score: float | None) -> Determination:
    if chronological_age_months is None:
        return Determination.NO_CHRONOLOGICAL_AGE
    if z_score is None:
        return Determination.OUTSIDE_REFERENCE
    if z_score < -2:
        return Determination.DELAYED
    return Determination.ADVANCED if z_score > 2 else Determination.NORMAL


def _days_in_previous_month(day: date) -> int:
    return (day.replace(day=1) - date.resolution).day
