"""The bones of a left hand at a bone age, in millimetres. Geometry only, no pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inference.phantom.anatomy import (
    EPIPHYSIS_SHARE,
    FINGER_DEGREES,
    FOREARM_DEGREES,
    FOREARM_PLATES,
    METACARPAL_BASES,
    METACARPAL_DEGREES,
    TUBES,
)
from inference.phantom.bone import Body, Bone, Points, body_of, unit
from inference.phantom.carpus import carpals, sesamoids
from inference.phantom.maturation import Sex
from inference.phantom.tubes import tube_bones


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How one hand lies on the detector and how it is built; the same for every bone age."""

    spread: float
    """Factor on the angles between the fingers."""
    thumb_degrees: float
    wrist_degrees: float
    bend_degrees: tuple[float, ...]
    """Fifteen small angles: for each digit its three pieces beyond the metacarpal."""
    width: float
    """Factor on the width of the bones."""
    fat: float
    """Factor on the thickness of the soft tissue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Skeleton:
    """Bones, and the points that the soft tissue follows."""

    bones: tuple[Bone, ...]
    digits: Mapping[int, Points]
    """Base of the metacarpal, then every joint, then the tip of the last phalanx."""
    wrist: Points
    """Shape (2, 2): ulnar and radial growth plate."""
    scale: float
    """Lengths over those of a grown man."""


def skeleton(*, sex: Sex, bone_age_months: float, pose: Pose) -> Skeleton:
    """Build the hand, drawn for bone ages of 8..216 months."""
    body = body_of(sex=sex, bone_age_months=bone_age_months, width=pose.width)
    digits = {digit: _joints(body, digit, pose) for digit in range(1, 6)}
    bones = [bone for digit, joints in digits.items() for bone in _digit(body, digit, joints)]
    bones += [*carpals(body), *sesamoids(body, digits[1][:2])]
    for name in FOREARM_PLATES:
        bones += _forearm(body, name, pose)
    wrist = np.array([body.place(FOREARM_PLATES[name]) for name in ("ulna", "radius")])
    return Skeleton(bones=tuple(bones), digits=digits, wrist=wrist, scale=body.length)


def _names(digit: int) -> list[str]:
    return [f"{part}{digit}" for part in ("MC", "PP", "MP", "DP") if f"{part}{digit}" in TUBES]


def _joints(body: Body, digit: int, pose: Pose) -> Points:
    joints = [body.place(METACARPAL_BASES[digit])]
    degrees = pose.thumb_degrees if digit == 1 else 0.0
    for place, name in enumerate(_names(digit)):
        along = METACARPAL_DEGREES[digit]
        if place:
            bend = pose.bend_degrees[3 * digit - 4 + place]
            along = FINGER_DEGREES[digit] * pose.spread + bend
        length_mm = TUBES[name].length_mm * body.length
        joints.append(joints[-1] + unit(along + degrees) * length_mm)
    return np.array(joints)


def _digit(body: Body, digit: int, joints: Points) -> list[Bone]:
    bones: list[Bone] = []
    for name, near, far in zip(_names(digit), joints, joints[1:], strict=False):
        distal_plate = name.startswith("MC") and digit > 1
        joint, end = (far, near) if distal_plate else (near, far)
        bones += tube_bones(body, name, joint=joint, far=end)
    return bones


def _forearm(body: Body, name: str, pose: Pose) -> list[Bone]:
    direction = unit(FOREARM_DEGREES[name] + pose.wrist_degrees)
    length_mm = TUBES[name].length_mm * body.length
    joint = body.place(FOREARM_PLATES[name]) - direction * length_mm * EPIPHYSIS_SHARE[name]
    return tube_bones(body, name, joint=joint, far=joint + direction * length_mm)
