"""Lists of imaginary children for demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from inference.phantom.maturation import MAX_BONE_AGE_MONTHS, MIN_BONE_AGE_MONTHS, Sex

_YOUNGEST_MONTHS = 24
_OLDEST_MONTHS = {"F": 174, "M": 200}
_FIRST_STUDY = date(2025, 1, 6)
# Typical SD of the bone age at a chronological age, months: enough to imagine children by
_SD_AGES, _SD_MONTHS = (24, 60, 120, 156, 204), (4.0, 8.5, 11.1, 13.0, 15.4)


@dataclass(frozen=True, kw_only=True)
class PhantomExam:
    """One imaginary child: what is drawn, and what its header says."""

    sex: Sex
    bone_age_months: float
    chronological_age_months: int
    birth_date: date
    study_date: date
    seed: int


def phantom_exams(count: int, seed: int = 0) -> list[PhantomExam]:
    """Children of 2 to 16 years, boys and girls in turn, bone age near the chronological age.

    Every fourth, from the third on, is delayed or advanced by 2.3 to 3 standard deviations. Equal
    arguments give an equal list.
    """
    rng = np.random.default_rng(seed)
    places = (rng.permutation(count) + 0.5) / count
    return [_exam(index, float(place), seed, rng) for index, place in enumerate(places)]


def _exam(index: int, place: float, seed: int, rng: np.random.Generator) -> PhantomExam:
    sex: Sex = "F" if index % 2 else "M"
    age_months = round(_YOUNGEST_MONTHS + place * (_OLDEST_MONTHS[sex] - _YOUNGEST_MONTHS))
    study_date = date.fromordinal(_FIRST_STUDY.toordinal() + int(rng.integers(0, 360)))
    study_date = study_date.replace(day=min(study_date.day, 28))
    return PhantomExam(
        sex=sex,
        bone_age_months=_bone_age(age_months, unusual=index % 4 == 2, rng=rng),
        chronological_age_months=age_months,
        birth_date=_months_before(study_date, age_months),
        study_date=study_date,
        seed=seed * 10_000 + index,
    )


def _bone_age(age_months: int, *, unusual: bool, rng: np.random.Generator) -> float:
    sd_months = float(np.interp(age_months, _SD_AGES, _SD_MONTHS))
    z = float(rng.uniform(2.3, 3.0) * rng.choice([-1, 1]) if unusual else rng.uniform(-1, 1))
    if not MIN_BONE_AGE_MONTHS <= age_months + z * sd_months <= MAX_BONE_AGE_MONTHS:
        z = -z
    return round(age_months + z * sd_months, 1)


def _months_before(day: date, months: int) -> date:
    """The same day of an earlier month; ``day`` must not be beyond the 28th."""
    years, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return day.replace(year=years, month=month + 1)
