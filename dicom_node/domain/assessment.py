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
class Prediction:
    """Immutable model output with its identity: mean and predictive SD of the bone age in
    months."""

    bone_age_months: float
    sd_months: float
    hand_box: HandBox
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
    notes: tuple[str, ...]


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
    notes: tuple[str, ...],
) -> Assessment:
    """Compare a prediction with the chronological age; no extrapolation outside the reference
    table."""
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
        laterality=laterality,
        view_position=view_position,
        chronological_age_months=chronological_age_months,
        difference_months=difference,
        population_sd_months=population_sd,
        z_score=z_score,
        determination=_determination(chronological_age_months, z_score),
        reference_id=reference.table_id,
        reference_title=reference.title,
        notes=notes,
    )


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
