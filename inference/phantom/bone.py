"""What a drawn bone is, and the body that all bones of one hand share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.phantom.anatomy import FEMALE_LENGTH, FEMALE_WIDTH
from inference.phantom.maturation import Sex, stature_share

Points = NDArray[np.float64]
"""Shape (N, 2): x and y in millimetres, see :mod:`inference.phantom.anatomy`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bone:
    """One piece of bone: the union of its outlines, with what its density is drawn from."""

    name: str
    centres: tuple[str, ...]
    """Ossification centres that this piece shows, besides a shaft."""
    outlines: tuple[Points, ...]
    axis: Points
    """Shape (2, 2): the ends of the long axis."""
    half_depth_mm: float
    cortex_mm: float
    """Thickness of the cortex half-way along the axis."""
    shell_mm: float
    """Thickness of the cortex at the ends of the axis."""
    marrow: float = 1.0
    """Density of the inside half-way along the axis over that at its ends."""
    strength: float = 1.0
    """Factor on the density of the whole piece."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """The child: what every bone of one hand shares."""

    sex: Sex
    bone_age_months: float
    length: float
    """Lengths over those of a grown man."""
    width: float
    """Widths of the tubular bones over those of a grown man."""
    youth: float
    """1 at birth, 0 from 13 years on."""

    @property
    def shell_mm(self) -> float:
        """Thickness of the cortex of a small bone."""
        return 0.65 * self.length + 0.1

    @property
    def density(self) -> float:
        """Mineral of the bones, which rises until they are mature; 1 at ten years."""
        return 0.7 + 0.3 * min(1.5, self.bone_age_months / 120)

    def place(self, point: Sequence[float]) -> Points:
        """A point of the mature hand in this one: the hand of a small child is relatively broader,
        its unossified wrist longer."""
        stretch = (1 + 0.12 * self.youth, 1 + 0.18 * self.youth)
        return np.asarray(np.array(point) * stretch * self.length)


def body_of(*, sex: Sex, bone_age_months: float, width: float) -> Body:
    """The body at a bone age; ``width``: factor on the width of the tubular bones."""
    share = stature_share(sex=sex, bone_age_months=bone_age_months)
    youth = max(0.0, 1 - bone_age_months / 156)
    length, slender = (FEMALE_LENGTH, FEMALE_WIDTH) if sex == "F" else (1.0, 1.0)
    return Body(
        sex=sex,
        bone_age_months=bone_age_months,
        length=share * length,
        width=share * slender * (1 + 0.18 * youth) * width,
        youth=youth,
    )


def unit(degrees: float) -> Points:
    """Unit vector at an angle from "up" towards the thumb, shape (2,)."""
    angle = np.radians(degrees)
    return np.array([np.sin(angle), -np.cos(angle)])


def between(ends: Points, share: float) -> Points:
    """The point at a share of the way from the first to the second of two points, shape (2,)."""
    return np.asarray(ends[0] + share * (ends[1] - ends[0]))


def smooth(outline: Points) -> Points:
    """Round the corners of a closed polygon by cutting them three times (Chaikin)."""
    for _ in range(3):
        following = np.roll(outline, -1, axis=0)
        pair = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1)
        outline = pair.reshape(-1, 2)
    return outline
