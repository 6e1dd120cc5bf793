"""Drawn pictures of limbs, hands and trunks: all in one style, so that style tells nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.float32]
"""Shape (S, S), 0..1, bright bones."""
Capsules = list[tuple[float, float, float, float, float]]
"""x and y of both ends and the radius, all over the side of the picture."""


def render(flesh: Capsules, bones: Capsules, side: int, rng: np.random.Generator) -> Picture:
    """Soft tissue and bones to grey levels; bones have a bright cortex and a fine texture."""
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) / side
    soft = np.zeros((side, side), dtype=np.float32)
    hard = np.zeros_like(soft)
    for capsule in flesh:
        soft = np.maximum(soft, np.sqrt(np.clip(1 - _distance(x, y, capsule) ** 2, 0, 1)))
    for capsule in bones:
        depth = _distance(x, y, capsule)
        profile = (0.6 + 0.4 * depth**3) * (depth < 1)
        hard = np.maximum(hard, profile)
    soft = ndimage.gaussian_filter(soft, side / 120)
    hard = ndimage.gaussian_filter(hard, side / 300)
    grain = ndimage.gaussian_filter(rng.standard_normal((side, side)), 0.8)
    grey = rng.uniform(0.2, 0.5) * soft + rng.uniform(0.3, 0.6) * hard
    grey += rng.uniform(0.0, 0.15) * grain * (soft + hard > 0.05)
    return np.asarray(np.clip(grey + rng.uniform(0.0, 0.1), 0, 1), dtype=np.float32)


def _distance(x: Picture, y: Picture, capsule: tuple[float, ...]) -> Picture:
    """Distance to the capsule's axis over its radius."""
    x0, y0, x1, y1, radius = capsule
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-9
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
    away = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
    return np.asarray(away / radius, dtype=np.float32)


def draw_hand(side: int, rng: np.random.Generator) -> Picture:
    """A left hand seen from its back, fingers up, thumb to the right, with wrist and forearm."""
    flesh, bones = _forearm(rng)
    palm = np.array([0.5, 0.62])
    width, reach = rng.uniform(0.8, 1.15), rng.uniform(0.85, 1.1)
    flesh.append((palm[0] - 0.04, palm[1] - 0.02, palm[0] + 0.04, palm[1], 0.15 * width))
    for _ in range(8):
        at = palm + rng.uniform((-0.07, 0.1), (0.07, 0.16))
        bones.append((*at, *at, rng.uniform(0.012, 0.025)))
    spread = rng.uniform(0.7, 1.3)
    for degrees, length in ((-30, 0.42), (-13, 0.52), (0, 0.56), (14, 0.52)):
        angle = np.radians(degrees * spread + rng.normal(0, 2))
        root = palm + np.array([0.18 * width * np.sin(angle), 0.08])
        _finger(flesh, bones, root, angle, length * reach, rng)
    root = palm + np.array([0.05 * width, 0.1])
    _finger(flesh, bones, root, np.radians(rng.uniform(38, 60)), 0.4 * reach, rng)
    return render(flesh, bones, side, rng)


def _finger(
    flesh: Capsules,
    bones: Capsules,
    root: NDArray[np.float64],
    angle: float,
    length: float,
    rng: np.random.Generator,
) -> None:
    """Metacarpal and phalanges from ``root`` at ``angle`` from straight up."""
    way = np.array([np.sin(angle), -np.cos(angle)])
    thick = rng.uniform(0.03, 0.045)
    flesh.append((*(root + 0.2 * length * way), *(root + length * way), thick))
    cuts = (0.02, 0.4, 0.68, 0.85, 0.98)
    for begin, end in pairwise(cuts):
        span = (*(root + (begin + 0.02) * length * way), *(root + (end - 0.02) * length * way))
        bones.append((*span, rng.uniform(0.3, 0.42) * thick))


def _forearm(rng: np.random.Generator) -> tuple[Capsules, Capsules]:
    wide, lean = rng.uniform(0.08, 0.12), rng.uniform(-0.1, 0.1)
    flesh = [(0.5, 0.7, 0.5 + lean, 1.2, wide)]
    bones = [
        (0.5 + shift * wide, 0.8, 0.5 + lean + shift * wide, 1.2, rng.uniform(0.25, 0.4) * wide)
        for shift in (-0.5, 0.5)
    ]
    return flesh, bones


def draw_limb(side: int, rng: np.random.Generator) -> Picture:
    """One or two joints of an arm or leg: knee, elbow, ankle or shaft."""
    angle, bend = rng.uniform(-0.3, 0.3), rng.normal(0, 0.5)
    joint = np.array([0.5, 0.5]) + rng.uniform(-0.15, 0.15, 2)
    wide = rng.uniform(0.1, 0.28)
    flesh: Capsules = []
    bones: Capsules = []
    for way in (angle, angle + np.pi + bend):
        unit = np.array([np.sin(way), np.cos(way)])
        across = np.array([unit[1], -unit[0]])
        flesh.append((*joint, *(joint + 1.1 * unit), wide * rng.uniform(0.8, 1.2)))
        count = int(rng.integers(1, 3))
        for number in range(count):
            beside = across * wide * (0.45 * (2 * number - 1) if count == 2 else 0.0)
            thick = wide * rng.uniform(0.18, 0.42) / count**0.5
            begin = joint + beside + unit * rng.uniform(0.03, 0.07)
            bones.append((*begin, *(begin + 1.1 * unit), thick))
            head = begin + across * thick * 0.5
            bones.append((*(begin - across * thick * 0.5), *head, thick * rng.uniform(1.0, 1.5)))
    if rng.random() < 0.4:
        at = joint + rng.uniform(-0.05, 0.05, 2)
        bones.append((*at, *at, wide * rng.uniform(0.15, 0.4)))
    return render(flesh, bones, side, rng)


def draw_foot(side: int, rng: np.random.Generator) -> Picture:
    """A foot from above: long metatarsals side by side, short toes, a broad heel."""
    flesh: Capsules = [(0.5, 0.3, 0.5, 0.9, rng.uniform(0.13, 0.18))]
    bones: Capsules = []
    for _ in range(7):
        at = np.array([0.5, 0.72]) + rng.uniform(-0.09, 0.09, 2)
        bones.append((*at, *at, rng.uniform(0.025, 0.05)))
    for number in range(5):
        x, tip = 0.5 + (number - 2) * 0.062, 0.1 + 0.035 * number * rng.uniform(0.7, 1.3)
        thick = 0.045 if number == 0 else 0.03
        flesh.append((x, 0.35, x + (number - 2) * 0.01, tip, thick))
        joints = (0.62, 0.32, 0.32 - 0.45 * (0.32 - tip), tip + 0.02)
        for begin, end in pairwise(joints):
            bones.append((x, begin - 0.012, x + (number - 2) * 0.008, end + 0.012, 0.42 * thick))
    bones.append((0.5, 0.78, 0.5, 0.9, rng.uniform(0.06, 0.1)))
    return render(flesh, bones, side, rng)


def draw_trunk(side: int, rng: np.random.Generator) -> Picture:
    """A spine with ribs, or with a pelvis and two thighs."""
    flesh: Capsules = [(0.5, -0.1, 0.5, 1.1, rng.uniform(0.3, 0.5))]
    thick = rng.uniform(0.03, 0.06)
    bones: Capsules = [(0.5 - thick, y, 0.5 + thick, y, 0.03) for y in np.arange(0, 1, 0.08)]
    if rng.random() < 0.5:
        drop = rng.uniform(0.05, 0.25)
        for y in np.arange(0.02, 0.8, rng.uniform(0.07, 0.12)):
            for way in (-1, 1):
                middle = 0.5 + way * rng.uniform(0.15, 0.25)
                bones.append((0.5, y, middle, y + 0.3 * drop, 0.012))
                bones.append((middle, y + 0.3 * drop, 0.5 + way * 0.38, y + drop, 0.012))
    else:
        for way in (-1, 1):
            bones.append((0.5 + way * 0.1, 0.4, 0.5 + way * 0.3, 0.3, rng.uniform(0.05, 0.1)))
            bones.append((0.5 + way * 0.1, 0.65, 0.5 + way * 0.25, 0.55, 0.04))
            bones.append((0.5 + way * 0.3, 0.6, 0.5 + way * 0.27, 1.1, rng.uniform(0.04, 0.07)))
    return render(flesh, bones, side, rng)


DRAWN: dict[str, Callable[[int, np.random.Generator], Picture]] = {
    "drawn_hand": draw_hand,
    "drawn_limb": draw_limb,
    "drawn_foot": draw_foot,
    "drawn_trunk": draw_trunk,
}
"""What each group draws."""
