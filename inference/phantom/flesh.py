"""Soft tissue around a skeleton: distance to the skin and thickness along the beam."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.phantom.anatomy import FINGER_RADII_MM
from inference.phantom.bone import Points, between, unit
from inference.phantom.skeleton import Pose, Skeleton

Field = NDArray[np.float32]
"""One value for each pixel of a coarse grid, shape (Rows, Columns)."""

_FAT_MM = 2.2
_MUSCLE_EXCESS = 0.16
"""Attenuation of muscle over that of fat, minus one."""
_PAD_MM = 1.6
"""Flesh beyond the tip of the last phalanx, beside its half width."""
_Capsule = tuple[Points, Points, float, float]
"""A limb: two ends and the half width at each, millimetres."""


def skin_depth_mm(skeleton: Skeleton, pose: Pose, *, x_mm: Field, y_mm: Field) -> Field:
    """Distance to the skin, positive inside; ``x_mm`` and ``y_mm`` are the places of the pixels."""
    size = skeleton.scale * pose.fat * (1 + 0.3 * max(0.0, 0.85 - skeleton.scale))
    depths = [_capsule_depth(limb, x_mm, y_mm) for limb in _limbs(skeleton, pose, size)]
    depths += [_slab_depth(corners, x_mm, y_mm) + 8 * size for corners in _palm(skeleton)]
    depth = np.max(depths, axis=0)
    pixel_mm = float(np.hypot(x_mm[0, 1] - x_mm[0, 0], y_mm[0, 1] - y_mm[0, 0]))
    return np.asarray(ndimage.gaussian_filter(depth, 2.8 * skeleton.scale / pixel_mm))


def half_width_mm(depth_mm: Field, *, scale: float, pixel_mm: float) -> Field:
    """Half width of the limb at each pixel: the largest depth near by."""
    inside = np.maximum(depth_mm, 0)
    widest = ndimage.maximum_filter(inside, size=int(24 * scale / pixel_mm) | 1)
    return np.asarray(ndimage.gaussian_filter(widest, 7 * scale / pixel_mm) + 0.2)


def thickness_mm(depth_mm: Field, half_width: Field, *, scale: float) -> Field:
    """Soft tissue along the beam in millimetres of fat (muscle counts for more); same shape."""
    inside = np.maximum(depth_mm, 0)
    half_depth = 9 * scale * (half_width / (9 * scale)) ** 0.32
    fat = _chord(inside, half_width, half_depth)
    muscle = _chord(np.maximum(inside - _FAT_MM * scale, 0), half_width, half_depth)
    return fat + np.float32(_MUSCLE_EXCESS) * muscle


def _chord(depth: Field, half_width: Field, half_depth: Field) -> Field:
    """Length of the beam in an ellipse with these half axes."""
    from_middle = 1 - np.minimum(depth / half_width, 1)
    return np.asarray(2 * half_depth * np.sqrt(1 - from_middle**2), dtype=np.float32)


def _capsule_depth(limb: _Capsule, x_mm: Field, y_mm: Field) -> Field:
    start, end, start_radius, end_radius = limb
    dx, dy = end - start
    along = ((x_mm - start[0]) * dx + (y_mm - start[1]) * dy) / (dx * dx + dy * dy + 1e-9)
    along = np.clip(along, 0, 1)
    off = np.hypot(x_mm - start[0] - along * dx, y_mm - start[1] - along * dy)
    return np.asarray(start_radius + along * (end_radius - start_radius) - off, dtype=np.float32)


def _slab_depth(corners: Points, x_mm: Field, y_mm: Field) -> Field:
    """Distance to the edges of a convex polygon, positive inside."""
    middle = corners.mean(axis=0)
    edges = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        across = np.array([start[1] - end[1], end[0] - start[0]]) / np.hypot(*(end - start))
        across *= np.sign(across @ (middle - start))
        edges.append((x_mm - start[0]) * across[0] + (y_mm - start[1]) * across[1])
    return np.asarray(np.min(edges, axis=0), dtype=np.float32)


def _limbs(skeleton: Skeleton, pose: Pose, size: float) -> Iterator[_Capsule]:
    for digit, joints in skeleton.digits.items():
        yield from _finger(joints, [radius * size for radius in FINGER_RADII_MM[digit]], size)
    ulna, radius = skeleton.wrist
    middle, half = (ulna + radius) / 2, float(np.hypot(*(radius - ulna))) / 2
    elbow = middle + unit(184 + pose.wrist_degrees) * 160 * skeleton.scale
    carpus, little = (skeleton.digits[3][0] + ulna) / 2, skeleton.digits[5][:2]
    yield middle, elbow, half + 15.5 * size, half + 27 * size
    yield carpus, middle, 22 * size, half + 15.5 * size
    yield skeleton.digits[1][0], radius, 13 * size, 13 * size
    yield little[0], little[1], 15 * size, 11.5 * size


def _finger(joints: Points, radii: list[float], size: float) -> Iterator[_Capsule]:
    """One capsule a bone; the last ends so that the flesh reaches just beyond the bone."""
    last = joints[-1] - joints[-2]
    tip = joints[-1] + last / np.hypot(*last) * (_PAD_MM * size - 0.55 * radii[-1])
    ends = [*joints[:-1], tip]
    yield from zip(ends, ends[1:], [radii[0], *radii], radii, strict=False)


def _palm(skeleton: Skeleton) -> Iterator[Points]:
    """Palm up to the webs between the fingers, and the fold between thumb and index finger."""
    digits = skeleton.digits
    webs = [between(digits[d][1:3], share) for d, share in ((5, 0.2), (4, 0.3), (3, 0.3), (2, 0.2))]
    yield np.array([digits[5][0], *webs, digits[2][0]])
    fold = [between(digits[2][:2], 0.6), between(digits[1][:2], 0.72)]
    yield np.array([*fold, digits[1][0], digits[3][0]])
    knuckles = [between(digits[d][:2], 0.5) for d in (5, 2)]
    yield np.array([*knuckles, digits[1][0], *skeleton.wrist[::-1]])
