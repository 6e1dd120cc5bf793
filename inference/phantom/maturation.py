"""When each ossification centre of the left hand appears, grows and fuses, in months of bone age.

The order and the ages follow published indicator timelines of the Greulich-Pyle atlas; where they
name no month, the value lies between the neighbouring ones. Good enough to draw by, not to read by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

Sex = Literal["F", "M"]
"""Patient's Sex (0010,0040) as the phantom needs it."""

MIN_BONE_AGE_MONTHS = 8.0
MAX_BONE_AGE_MONTHS = 216.0


@dataclass(frozen=True, kw_only=True)
class EpiphysisAges:
    """One epiphysis: appears, is as wide as its shaft, begins to fuse, has fused. Months."""

    onset_months: float
    full_width_months: float
    fusion_start_months: float
    fusion_end_months: float


@dataclass(frozen=True, kw_only=True)
class CentreAges:
    """One carpal or sesamoid: appears, has its mature shape and size. Months."""

    onset_months: float
    full_size_months: float


# onset, as wide as the shaft, fusion begins, fusion complete: boys; girls
_EPIPHYSIS_ROWS: dict[str, tuple[float, ...]] = {
    "radius": (13, 156, 204, 228, 10, 126, 184, 204),
    "ulna": (82, 180, 198, 222, 66, 156, 178, 194),
    "MC1": (30, 144, 178, 191, 22, 126, 157, 168),
    "MC2": (17, 156, 189, 203, 12, 132, 164, 178),
    "MC3": (18, 156, 189, 203, 12, 132, 164, 178),
    "MC4": (20, 156, 189, 203, 14, 132, 164, 178),
    "MC5": (24, 156, 189, 203, 17, 132, 164, 178),
    "PP1": (29, 140, 180, 198, 21, 114, 160, 170),
    "PP2": (15, 132, 181, 200, 11, 108, 160, 172),
    "PP3": (14, 156, 181, 200, 10, 108, 160, 172),
    "PP4": (16, 156, 181, 200, 11, 108, 160, 172),
    "PP5": (22, 156, 180, 199, 16, 120, 157, 168),
    "MP2": (28, 132, 182, 200, 16, 108, 161, 174),
    "MP3": (22, 132, 183, 202, 15, 108, 161, 174),
    "MP4": (23, 132, 183, 202, 15, 108, 161, 174),
    "MP5": (44, 156, 182, 200, 27, 120, 161, 174),
    "DP1": (14, 110, 172, 188, 13, 84, 155, 167),
    "DP2": (30, 96, 173, 190, 29, 72, 156, 167),
    "DP3": (24, 96, 173, 190, 20, 60, 156, 167),
    "DP4": (24, 96, 173, 190, 20, 60, 156, 167),
    "DP5": (30, 96, 173, 190, 24, 60, 156, 167),
}
# onset, mature: boys; girls
_CENTRE_ROWS: dict[str, tuple[float, ...]] = {
    "capitate": (3, 120, 2, 98),
    "hamate": (4, 132, 3, 110),
    "triquetrum": (28, 150, 23, 124),
    "lunate": (36, 150, 32, 124),
    "trapezium": (54, 156, 44, 130),
    "scaphoid": (66, 156, 47, 130),
    "trapezoid": (68, 156, 47, 130),
    "pisiform": (120, 168, 108, 144),
    "adductor sesamoid": (156, 180, 130, 156),
    "flexor sesamoid": (166, 192, 132, 160),
}
_HAMATE_HOOK_MONTHS: Mapping[Sex, float] = MappingProxyType({"M": 132.0, "F": 120.0})

# Share of mature height by bone age: infants and toddlers from median heights for age, from six
# years the "average" columns of Bayley and Pinneau (J Pediatr 1952;40:423-441). Months, share.
_STATURE: Mapping[Sex, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "M": (
            (8, 12, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156, 168, 180, 192, 204, 216),
            (
                *(0.400, 0.430, 0.494, 0.543, 0.583, 0.620, 0.657, 0.695, 0.723, 0.752),
                *(0.784, 0.804, 0.834, 0.876, 0.927, 0.968, 0.982, 0.991, 0.996),
            ),
        ),
        "F": (
            (8, 12, 24, 36, 48, 60, 72, 84, 96, 108, 120, 132, 144, 156, 168, 180, 192, 204, 216),
            (
                *(0.420, 0.455, 0.530, 0.585, 0.628, 0.672, 0.720, 0.757, 0.790, 0.827),
                *(0.862, 0.906, 0.922, 0.958, 0.980, 0.990, 0.996, 0.999, 1.000),
            ),
        ),
    }
)


def _epiphyses(first: int) -> Mapping[str, EpiphysisAges]:
    return MappingProxyType(
        {
            name: EpiphysisAges(
                onset_months=row[first],
                full_width_months=row[first + 1],
                fusion_start_months=row[first + 2],
                fusion_end_months=row[first + 3],
            )
            for name, row in _EPIPHYSIS_ROWS.items()
        }
    )


def _centres(first: int) -> Mapping[str, CentreAges]:
    return MappingProxyType(
        {
            name: CentreAges(onset_months=row[first], full_size_months=row[first + 1])
            for name, row in _CENTRE_ROWS.items()
        }
    )


EPIPHYSES: Mapping[Sex, Mapping[str, EpiphysisAges]] = MappingProxyType(
    {"M": _epiphyses(0), "F": _epiphyses(4)}
)
"""Epiphysis of each tubular bone, by the bone's name: MC1-5, PP1-5, MP2-5, DP1-5, radius, ulna."""
CENTRES: Mapping[Sex, Mapping[str, CentreAges]] = MappingProxyType(
    {"M": _centres(0), "F": _centres(2)}
)
"""Carpals and the two sesamoids of the thumb."""


def ossified_centres(*, sex: Sex, bone_age_months: float) -> frozenset[str]:
    """Names of the centres that have appeared: ``capitate``, ``PP3 epiphysis``... Shafts are not
    listed."""
    epiphyses = EPIPHYSES[sex].items()
    grown = {f"{name} epiphysis" for name, ages in epiphyses if ages.onset_months < bone_age_months}
    return frozenset(
        grown | {name for name, ages in CENTRES[sex].items() if ages.onset_months < bone_age_months}
    )


def epiphysis_width(ages: EpiphysisAges, bone_age_months: float) -> float:
    """Width of an epiphysis over the width of its shaft: 0 before onset, 1 at full width, then
    capping to 1.06."""
    if bone_age_months <= ages.onset_months:
        return 0.0
    span = ages.full_width_months - ages.onset_months
    share = (bone_age_months - ages.onset_months) / span
    if share < 1:
        return float(0.2 + 0.8 * share**0.34)
    return float(1 + 0.06 * min(1.0, (bone_age_months - ages.full_width_months) / 12))


def fusion(ages: EpiphysisAges, bone_age_months: float) -> float:
    """Share of the growth plate that bone has bridged, 0..1."""
    span = ages.fusion_end_months - ages.fusion_start_months
    return float(np.clip((bone_age_months - ages.fusion_start_months) / span, 0.0, 1.0))


def centre_growth(ages: CentreAges, bone_age_months: float) -> float:
    """Linear size of a carpal or sesamoid over its mature size; 0 before onset."""
    if bone_age_months <= ages.onset_months:
        return 0.0
    span = ages.full_size_months - ages.onset_months
    return float(0.15 + 0.85 * min(1.0, (bone_age_months - ages.onset_months) / span) ** 0.55)


def hook_growth(*, sex: Sex, bone_age_months: float) -> float:
    """Visibility of the hook of the hamate, 0..1 over a year."""
    return float(np.clip((bone_age_months - _HAMATE_HOOK_MONTHS[sex]) / 12, 0.0, 1.0))


def stature_share(*, sex: Sex, bone_age_months: float) -> float:
    """Share of the mature height, and here of every bone's mature length."""
    ages, shares = _STATURE[sex]
    return float(np.interp(bone_age_months, ages, shares))
