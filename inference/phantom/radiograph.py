"""Draw one synthetic radiograph of a left hand: bone age, sex and seed to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.phantom.exposure import Border, Exposure, add_marker, expose
from inference.phantom.maturation import MAX_BONE_AGE_MONTHS, MIN_BONE_AGE_MONTHS, Sex
from inference.phantom.projection import Frame, bone_attenuation, flesh_attenuation, turned
from inference.phantom.skeleton import Pose, Skeleton, skeleton

ROWS, COLUMNS = 2000, 1500

_DRAWN_ROWS = 1900
"""Bones are drawn on a grid with this many rows, whatever the size of the result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Radiograph:
    """``pixels``: uint16, shape (Rows, Columns), 0..4095, bright bones."""

    pixels: NDArray[np.uint16]
    pixel_spacing_mm: float
    """Side of a pixel in the plane of the detector."""


def draw(
    *, bone_age_months: float, sex: Sex, seed: int, rows: int = ROWS, columns: int = COLUMNS
) -> Radiograph:
    """Draw a left hand, PA view, fingers up. Equal arguments give equal pixels.

    ``seed`` decides posture, build, framing and exposure, not the maturity. Raises ``ValueError``
    for a bone age outside 8..216 months.
    """
    if not MIN_BONE_AGE_MONTHS <= bone_age_months <= MAX_BONE_AGE_MONTHS:
        raise ValueError(
            f"bone age {bone_age_months} months: the phantom is drawn for "
            f"{MIN_BONE_AGE_MONTHS:g} to {MAX_BONE_AGE_MONTHS:g}"
        )
    rng = np.random.default_rng(seed)
    pose = pose_of(rng)
    hand = skeleton(sex=sex, bone_age_months=bone_age_months, pose=pose)
    drawn_columns = round(_DRAWN_ROWS * columns / rows)
    frame, exposure = _framed(hand, rng, rows=_DRAWN_ROWS, columns=drawn_columns)
    flesh, depth_mm = flesh_attenuation(hand, pose, frame)
    attenuation = flesh + bone_attenuation(hand, frame)
    attenuation = add_marker(attenuation, depth_mm, exposure, pixel_mm=frame.pixel_mm)
    pixels = expose(attenuation, exposure, pixel_mm=frame.pixel_mm, size=(rows, columns), rng=rng)
    return Radiograph(pixels=pixels, pixel_spacing_mm=frame.pixel_mm * _DRAWN_ROWS / rows)


def pose_of(rng: np.random.Generator) -> Pose:
    """A posture and a build at random."""
    return Pose(
        spread=float(rng.uniform(0.75, 1.25)),
        thumb_degrees=float(rng.uniform(-9, 7)),
        wrist_degrees=float(rng.uniform(-4, 8)),
        bend_degrees=tuple(rng.normal(0, 1.8, 15).tolist()),
        width=float(rng.uniform(0.94, 1.06)),
        fat=float(rng.uniform(0.95, 1.1)),
    )


def _framed(
    hand: Skeleton, rng: np.random.Generator, *, rows: int, columns: int
) -> tuple[Frame, Exposure]:
    """Choose scale and place so that fingers, thumb and some forearm fill the picture."""
    turn = float(rng.normal(0, 3.5))
    border = Border(rng.choice([border.value for border in Border], p=(0.45, 0.35, 0.2)))
    fill = float(rng.uniform(0.74, 0.9)) * (0.72 + 0.28 * min(1.0, hand.scale / 0.75))
    margin = np.array([0.9 if border is Border.NONE else 0.94, 1.0]) * (columns, rows)
    low, high = _extent(hand, turn, forearm_mm=float(rng.uniform(32, 52)))
    pixel_mm = float(max((high - low)[0] / margin[0], (high - low)[1] / (fill * rows)))
    middle = np.array([columns, rows]) * (0.5, 0.5) + rng.uniform(-0.02, 0.02, 2) * rows
    middle[0] = columns / 2 + (middle[0] - columns / 2) * 0.5
    origin = middle - (low + high) / 2 / pixel_mm
    if border is Border.NONE:
        origin[1] = rows - high[1] / pixel_mm
    frame = Frame(
        rows=rows,
        columns=columns,
        pixel_mm=pixel_mm,
        turn_degrees=turn,
        origin=(float(origin[0]), float(origin[1])),
    )
    edges = np.array([origin + low / pixel_mm, origin + high / pixel_mm]) / (columns, rows)
    return frame, _exposure(edges, border, rng)


def _extent(
    hand: Skeleton, turn: float, *, forearm_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners around the hand with its skin and ``forearm_mm`` (of a man's) below the wrist."""
    points = np.vstack([*hand.digits.values(), hand.wrist])
    points = turned(points, turn)
    low = points.min(axis=0) - np.array([14, 8]) * hand.scale
    high = points.max(axis=0) + np.array([11, forearm_mm]) * hand.scale
    return low, high


def _exposure(edges: NDArray[np.float64], border: Border, rng: np.random.Generator) -> Exposure:
    (left, top), (right, bottom) = edges
    room = rng.uniform(0.02, 0.1, 3)
    black = float(rng.uniform(60, 420))
    return Exposure(
        border=border,
        field=(left - room[0], top - 0.7 * room[1], right + room[2], bottom),
        field_degrees=float(rng.normal(0, 0.8)),
        heel=float(rng.uniform(-0.02, 0.05)),
        black=black,
        white=float(rng.uniform(3300, 4095)) + black * 0.5,
        contrast=float(rng.uniform(0.3, 0.9)),
        noise=float(rng.uniform(0.004, 0.012)),
        marker_places=tuple(int(place) for place in rng.permutation(6)),
        marker_degrees=float(rng.normal(0, 9)),
    )
