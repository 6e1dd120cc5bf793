"""Shapes and sizes of a mature left hand, seen from the back, as tables.

Millimetres in the plane of the detector; x grows towards the thumb, y towards the elbow; the origin
is the middle of the base of the third metacarpal. Sizes are those of a man; plausible, not measured
on a population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Tube:
    """One tubular bone: length with its epiphysis and width at the growth plate, millimetres.

    ``far_width``: width of the end without growth plate over the width that the profile gives it.
    """

    length_mm: float
    width_mm: float
    far_width: float = 1.0


TUBES: Mapping[str, Tube] = MappingProxyType(
    {
        "MC1": Tube(length_mm=45.5, width_mm=15.5),
        "MC2": Tube(length_mm=69.0, width_mm=14.2, far_width=1.2),
        "MC3": Tube(length_mm=66.0, width_mm=14.0),
        "MC4": Tube(length_mm=57.0, width_mm=12.0),
        "MC5": Tube(length_mm=52.5, width_mm=11.5, far_width=1.18),
        "PP1": Tube(length_mm=31.0, width_mm=13.6),
        "PP2": Tube(length_mm=42.0, width_mm=14.8),
        "PP3": Tube(length_mm=46.0, width_mm=14.8),
        "PP4": Tube(length_mm=43.0, width_mm=13.4),
        "PP5": Tube(length_mm=33.5, width_mm=11.4),
        "MP2": Tube(length_mm=24.5, width_mm=12.2),
        "MP3": Tube(length_mm=29.0, width_mm=12.8),
        "MP4": Tube(length_mm=27.5, width_mm=11.9),
        "MP5": Tube(length_mm=19.5, width_mm=9.6),
        "DP1": Tube(length_mm=23.0, width_mm=11.6),
        "DP2": Tube(length_mm=18.0, width_mm=9.6),
        "DP3": Tube(length_mm=19.5, width_mm=10.0),
        "DP4": Tube(length_mm=19.0, width_mm=9.6),
        "DP5": Tube(length_mm=17.0, width_mm=7.9),
        "radius": Tube(length_mm=190.0, width_mm=29.5),
        "ulna": Tube(length_mm=190.0, width_mm=17.8),
    }
)

FEMALE_LENGTH = 0.93
FEMALE_WIDTH = 0.89

METACARPAL_BASES: Mapping[int, tuple[float, float]] = MappingProxyType(
    {1: (33.0, 9.5), 2: (15.5, 2.0), 3: (0.0, -0.6), 4: (-12.0, 0.8), 5: (-18.6, 4.8)}
)
FOREARM_PLATES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"radius": (3.2, 45.5), "ulna": (-21.6, 46.0)}
)
"""Middle of each growth plate."""

METACARPAL_DEGREES: Mapping[int, float] = MappingProxyType(
    {1: 43.0, 2: 7.0, 3: 0.0, 4: -7.5, 5: -17.5}
)
"""Directions from the vertical towards the thumb."""
FINGER_DEGREES: Mapping[int, float] = MappingProxyType(
    {1: 39.0, 2: 7.0, 3: -3.5, 4: -12.0, 5: -25.0}
)
FOREARM_DEGREES: Mapping[str, float] = MappingProxyType({"radius": 182.0, "ulna": 188.0})


class Family(Enum):
    """Bones that share a profile."""

    METACARPAL = "metacarpal"
    PHALANX = "phalanx"
    DISTAL = "distal"
    FOREARM = "forearm"


PROFILES: Mapping[Family, Outline] = MappingProxyType(
    {
        Family.METACARPAL: (
            *((0.00, 0.86), (0.015, 0.98), (0.06, 1.00), (0.14, 0.90), (0.26, 0.73)),
            *((0.42, 0.64), (0.58, 0.63), (0.72, 0.71), (0.84, 0.90), (0.92, 1.05)),
            *((0.97, 1.06), (1.00, 0.84)),
        ),
        Family.PHALANX: (
            *((0.00, 0.88), (0.02, 1.00), (0.08, 0.98), (0.20, 0.88), (0.38, 0.79)),
            *((0.58, 0.74), (0.74, 0.73), (0.85, 0.79), (0.92, 0.82), (0.97, 0.75), (1.00, 0.50)),
        ),
        Family.DISTAL: (
            *((0.00, 0.90), (0.03, 1.00), (0.10, 0.92), (0.25, 0.68), (0.42, 0.53)),
            *((0.60, 0.48), (0.74, 0.51), (0.84, 0.62), (0.92, 0.64), (0.98, 0.50), (1.00, 0.22)),
        ),
        Family.FOREARM: (
            *((0.00, 0.92), (0.004, 0.99), (0.02, 1.00), (0.05, 0.91), (0.10, 0.75)),
            *((0.18, 0.61), (0.30, 0.54), (0.50, 0.50), (1.00, 0.50)),
        ),
    }
)
"""Half widths (over the half width at the growth plate) along the shaft, from the growth plate."""

EPIPHYSIS_SHARE: Mapping[str, float] = MappingProxyType(
    {"MC": 0.2, "PP": 0.115, "MP": 0.13, "DP": 0.165, "radius": 0.084, "ulna": 0.055}
)
"""Height of the epiphysis with its growth plate over the length of the bone."""
FIRST_METACARPAL_SHARE = 0.16

_DISC: Outline = (
    *((-0.9, 0.0), (-0.45, 0.0), (0.0, 0.03), (0.45, 0.0), (0.9, 0.0), (1.02, 0.25)),
    *((1.02, 0.65), (0.88, 1.0), (0.45, 0.90), (0.0, 0.80), (-0.45, 0.90), (-0.88, 1.0)),
    *((-1.02, 0.65), (-1.02, 0.25)),
)
_HEAD: Outline = (
    *((-0.85, 0.0), (-0.4, 0.03), (0.0, 0.05), (0.4, 0.03), (0.85, 0.0), (1.02, 0.2)),
    *((0.99, 0.48), (0.84, 0.76), (0.52, 0.95), (0.0, 1.02), (-0.52, 0.95), (-0.84, 0.76)),
    *((-0.99, 0.48), (-1.02, 0.2)),
)
_RADIUS: Outline = (
    *((-0.98, 0.02), (-0.5, 0.02), (0.0, 0.02), (0.5, 0.0), (0.98, -0.03), (1.08, 0.12)),
    *((1.10, 0.55), (1.08, 0.86), (0.98, 1.02), (0.72, 0.88), (0.35, 0.64), (-0.2, 0.50)),
    *((-0.85, 0.44), (-1.02, 0.25)),
)
_ULNA: Outline = (
    *((-0.98, 0.0), (-0.4, 0.02), (0.0, 0.03), (0.5, 0.02), (0.98, 0.0), (1.04, 0.25)),
    *((0.98, 0.52), (0.55, 0.62), (0.0, 0.58), (-0.45, 0.60), (-0.60, 0.92), (-0.78, 1.05)),
    *((-0.96, 0.80), (-1.04, 0.30)),
)
EPIPHYSIS_OUTLINES: Mapping[str, Outline] = MappingProxyType(
    {"MC": _HEAD, "PP": _DISC, "MP": _DISC, "DP": _DISC, "radius": _RADIUS, "ulna": _ULNA}
)
"""Mature epiphyses; x over the half width of the shaft (positive: thumb side on the forearm), y
over the height, from the growth plate to the joint."""

CARPALS: Mapping[str, Outline] = MappingProxyType(
    {
        "capitate": (
            *((-6.0, 1.5), (-2.0, 0.4), (3.0, 1.6), (6.6, 4.0), (7.6, 8.0), (6.6, 14.0)),
            *((6.8, 20.0), (4.4, 25.0), (-1.0, 26.2), (-5.6, 24.4), (-7.4, 20.4), (-5.4, 14.0)),
            (-5.8, 7.5),
        ),
        "hamate": (
            *((-21.6, 5.6), (-17.0, 3.9), (-11.0, 4.2), (-7.0, 5.2), (-6.6, 11.0), (-7.6, 18.6)),
            *((-9.4, 22.0), (-12.0, 20.6), (-15.8, 14.6), (-20.8, 9.4)),
        ),
        "triquetrum": (
            *((-25.6, 13.4), (-21.4, 11.6), (-16.2, 15.8), (-13.2, 22.0), (-15.2, 26.6)),
            *((-18.2, 31.4), (-22.8, 31.4), (-24.8, 26.6), (-24.6, 21.0), (-26.4, 17.2)),
        ),
        "lunate": (
            *((-17.6, 31.0), (-13.4, 26.2), (-8.6, 24.6), (-3.0, 27.2), (-1.2, 31.6)),
            *((-2.4, 35.0), (-8.6, 36.2), (-14.4, 34.6)),
        ),
        "scaphoid": (
            *((-1.2, 30.4), (1.0, 25.6), (5.4, 23.4), (8.4, 20.4), (9.4, 16.4), (13.0, 15.4)),
            *((18.0, 18.6), (19.4, 23.6), (16.6, 28.4), (10.4, 32.8), (4.6, 35.0), (-0.4, 34.2)),
        ),
        "trapezoid": (
            *((8.2, 5.8), (12.4, 3.4), (17.8, 4.4), (18.6, 10.8), (16.0, 14.8), (12.2, 11.8)),
            (8.2, 10.2),
        ),
        "trapezium": (
            *((17.8, 12.4), (19.2, 4.8), (23.0, 1.8), (25.6, 4.0), (26.4, 9.6), (30.8, 14.2)),
            *((31.4, 17.0), (28.0, 20.8), (20.0, 21.6), (17.2, 17.6)),
        ),
        "pisiform": (
            *((-24.4, 22.8), (-21.0, 21.6), (-18.2, 24.0), (-17.8, 28.0), (-20.6, 30.6)),
            *((-24.2, 29.4), (-25.6, 26.0)),
        ),
    }
)
"""Mature outlines in the hand's coordinates."""
HAMATE_HOOK: Outline = (
    *((-17.2, 8.2), (-13.6, 6.2), (-10.4, 7.0), (-9.8, 10.6), (-11.6, 13.6), (-14.4, 13.0)),
)

SESAMOIDS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {"adductor sesamoid": (0.93, -7.2, 2.5), "flexor sesamoid": (0.97, 3.6, 2.0)}
)
"""Place along the first metacarpal, distance to its radial side (mm) and half height (mm)."""

FINGER_RADII_MM: Mapping[int, tuple[float, ...]] = MappingProxyType(
    {
        1: (13.5, 11.6, 9.0),
        2: (12.5, 10.6, 9.2, 8.0),
        3: (12.5, 10.8, 9.4, 8.2),
        4: (12.0, 10.2, 8.9, 7.8),
        5: (11.0, 9.0, 7.8, 6.8),
    }
)
"""Half width of the skin outline at each joint from the metacarpal's head on, then at the tip."""
