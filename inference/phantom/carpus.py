"""Round bones: carpals that grow from nodules to their mature shape, and the thumb's sesamoids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inference.phantom.anatomy import CARPALS, HAMATE_HOOK, SESAMOIDS, Outline
from inference.phantom.bone import Body, Bone, Points, between, smooth
from inference.phantom.maturation import CENTRES, centre_growth, hook_growth

_CUT_CORNERS = 1.1
"""Rounding a polygon makes it smaller by this."""


def carpals(body: Body) -> Iterator[Bone]:
    """The carpals that have appeared, and the ring of the hook of the hamate."""
    for name, outline in CARPALS.items():
        grown = centre_growth(CENTRES[body.sex][name], body.bone_age_months)
        if grown:
            yield _round_bone(body, name, _grown(body, outline, grown), centres=(name,))
    hook = hook_growth(sex=body.sex, bone_age_months=body.bone_age_months)
    if hook:
        outline_mm = _grown(body, HAMATE_HOOK, 1.0)
        yield _round_bone(body, "hamate hook", outline_mm, strength=0.3 * hook)


def sesamoids(body: Body, metacarpal: Points) -> Iterator[Bone]:
    """The sesamoids that have appeared; ``metacarpal``: base and head of the first, (2, 2)."""
    along = (metacarpal[1] - metacarpal[0]) / np.hypot(*(metacarpal[1] - metacarpal[0]))
    across = np.array([-along[1], along[0]])
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.outer(np.cos(angle), along) + np.outer(np.sin(angle), 0.8 * across)
    for name, (share, aside_mm, half_mm) in SESAMOIDS.items():
        grown = centre_growth(CENTRES[body.sex][name], body.bone_age_months)
        if grown:
            middle = between(metacarpal, share) + across * aside_mm * body.length
            outline = middle + ring * half_mm * body.length * max(0.5, grown)
            yield _round_bone(body, name, outline, centres=(name,), strength=0.9)


def _grown(body: Body, outline: Outline, grown: float) -> Points:
    """An outline that is an oval first and takes on its mature shape while it grows."""
    mature = np.array([body.place(point) for point in outline])
    middle = mature.mean(axis=0)
    rays = (mature - middle) * _CUT_CORNERS
    radius = 0.5 * np.sqrt(np.prod(np.ptp(rays, axis=0)))
    circle = rays / np.hypot(*rays.T)[:, None] * radius
    shaped = np.clip((grown - 0.3) / 0.6, 0, 1)
    return smooth(middle + (circle + (rays - circle) * shaped) * grown)


def _round_bone(
    body: Body,
    name: str,
    outline: Points,
    *,
    centres: tuple[str, ...] = (),
    strength: float = 1.0,
) -> Bone:
    size = float(np.ptp(outline, axis=0).min())
    return Bone(
        name=name,
        centres=centres,
        outlines=(outline,),
        axis=np.array([outline.min(axis=0), outline.max(axis=0)]),
        half_depth_mm=min(0.45 * size, 8.0 * body.length),
        cortex_mm=body.shell_mm,
        shell_mm=body.shell_mm,
        strength=strength * body.density,
    )
