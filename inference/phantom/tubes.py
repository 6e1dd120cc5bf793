"""Tubular bones: a shaft, and an epiphysis that appears, widens, caps and fuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.phantom.anatomy import (
    EPIPHYSIS_OUTLINES,
    EPIPHYSIS_SHARE,
    FIRST_METACARPAL_SHARE,
    PROFILES,
    TUBES,
    Family,
)
from inference.phantom.bone import Body, Bone, Points, smooth
from inference.phantom.maturation import EPIPHYSES, epiphysis_width, fusion

_HEADS = ("MC", "radius", "ulna")
"""Epiphyses that grow in height as much as in width; the others are discs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tube:
    """One bone of one hand; lengths are measured from the joint at the growth plate's end."""

    body: Body
    name: str
    joint: Points
    far: Points

    @property
    def length_mm(self) -> float:
        return TUBES[self.name].length_mm * self.body.length

    @property
    def width_mm(self) -> float:
        return TUBES[self.name].width_mm * self.body.width

    @property
    def family(self) -> Family:
        if self.name in ("radius", "ulna"):
            return Family.FOREARM
        if self.name.startswith("DP"):
            return Family.DISTAL
        metacarpal = self.name.startswith("MC") and self.name != "MC1"
        return Family.METACARPAL if metacarpal else Family.PHALANX

    @property
    def kind(self) -> str:
        """Key of the epiphysis' tables: the first metacarpal grows like a phalanx."""
        if self.family is Family.FOREARM:
            return self.name
        return "PP" if self.name == "MC1" else self.name[:2]

    @property
    def plate_mm(self) -> float:
        """Distance from the joint to the end of the shaft."""
        first = self.name == "MC1"
        share = FIRST_METACARPAL_SHARE if first else EPIPHYSIS_SHARE[self.kind]
        return share * self.length_mm

    @property
    def fused(self) -> float:
        return fusion(EPIPHYSES[self.body.sex][self.name], self.body.bone_age_months)

    @property
    def gap_mm(self) -> float:
        """Height of the growth plate, which narrows until it closes."""
        end = EPIPHYSES[self.body.sex][self.name].fusion_start_months
        left = max(0.0, 1 - self.body.bone_age_months / end)
        return min(0.3 * self.plate_mm, 0.35 + 0.25 * (1 - self.fused) + 1.1 * left)

    @property
    def axis(self) -> Points:
        """Growth plate and far end."""
        return np.array([self.to_hand(np.array([[self.plate_mm, 0.0]]))[0], self.far])

    def to_hand(self, points: Points) -> Points:
        """(Along from the joint, across), shape (N, 2), to the hand's coordinates."""
        along = (self.far - self.joint) / np.hypot(*(self.far - self.joint))
        return np.asarray(self.joint + points @ np.array([along, (along[1], -along[0])]))


def tube_bones(body: Body, name: str, *, joint: Points, far: Points) -> list[Bone]:
    """Shaft and epiphysis of a bone; ``joint`` is the end with the growth plate."""
    tube = _Tube(body=body, name=name, joint=joint, far=far)
    grown = epiphysis_width(EPIPHYSES[body.sex][name], body.bone_age_months)
    if not grown:
        return [_shaft_bone(tube, _shaft(tube))]
    cap = _epiphysis(tube, grown)
    if not tube.fused:
        return [_shaft_bone(tube, _shaft(tube)), _cap_bone(tube, cap)]
    return [_shaft_bone(tube, _shaft(tube), cap, _bridge(tube)), _scar_bone(tube)]


def _shaft(tube: _Tube) -> Points:
    """Outline from the profile; children's shafts have narrower waists and softer far ends."""
    body, length = tube.body, tube.length_mm
    at, half = np.array(PROFILES[tube.family]).T
    waist = 1 + body.youth * (0.3 if tube.family is Family.DISTAL else 1.1)
    half = np.where(half < 1, half**waist, half)
    half = half * (1 + (TUBES[tube.name].far_width - 1) * at**3) * tube.width_mm / 2
    end = length * (0.975 - 0.06 * max(0.0, 1 - body.bone_age_months / 72))
    along = tube.plate_mm + at * (end - tube.plate_mm)
    dent = 0.0 if tube.family is Family.METACARPAL else 0.018 * length
    side = np.column_stack([along, half])
    near = np.array([[along[0] + 0.01 * tube.width_mm, 0.0]])
    far = np.array([[along[-1] - dent, 0.0]])
    return tube.to_hand(smooth(np.vstack([near, side, far, (side * (1, -1))[::-1]])))


def _epiphysis(tube: _Tube, grown: float) -> Points:
    """Outline: a small oval first, then the mature shape, whose rim at last caps the shaft."""
    mature = np.array(EPIPHYSIS_OUTLINES[tube.kind])
    angle = np.arctan2(mature[:, 1] - 0.5, mature[:, 0])
    oval = np.column_stack([np.cos(angle), 0.5 + 0.5 * np.sin(angle)])
    outline = oval + (mature - oval) * np.clip((grown - 0.45) / 0.5, 0, 1)
    rim = (np.abs(mature[:, 0]) > 0.85) & (mature[:, 1] < 0.4)
    outline[:, 1] -= rim * 3.7 * max(0.0, grown - 1)
    width = min(1.0, grown)
    high = 0.15 + 0.85 * width if tube.kind in _HEADS else 0.55 + 0.45 * width**3
    room = tube.plate_mm - tube.gap_mm
    across = outline[:, 0] * grown * tube.width_mm / 2
    if tube.kind == "radius":  # its centre appears on the thumb's side
        across += 0.12 * tube.width_mm * (1 - width)
    return tube.to_hand(smooth(np.column_stack([room - outline[:, 1] * high * room, across])))


def _bridge(tube: _Tube) -> Points:
    """Bone across the growth plate, from its middle outwards."""
    return _box(tube, 0.55 * tube.plate_mm, 1.3 * tube.plate_mm, 0.49 * tube.fused)


def _box(tube: _Tube, start: float, end: float, half: float) -> Points:
    across = half * tube.width_mm
    corners = [[start, -across], [end, -across], [end, across], [start, across]]
    return tube.to_hand(np.array(corners))


def _shaft_bone(tube: _Tube, *outlines: Points) -> Bone:
    tuft = 0.75 if tube.family is Family.DISTAL else 1.0
    return Bone(
        name=tube.name,
        centres=(f"{tube.name} epiphysis",) if len(outlines) > 1 else (),
        outlines=outlines,
        axis=tube.axis,
        half_depth_mm=0.36 * tube.width_mm * tuft,
        cortex_mm=tube.width_mm * (0.155 - 0.06 * tube.body.youth) * tuft,
        shell_mm=0.75 * tube.body.length + 0.1,
        marrow=0.45,
        strength=tube.body.density * (1.8 if tube.family is Family.FOREARM else 1.0),
    )


def _cap_bone(tube: _Tube, outline: Points) -> Bone:
    return Bone(
        name=f"{tube.name} epiphysis",
        centres=(f"{tube.name} epiphysis",),
        outlines=(outline,),
        axis=np.array([tube.joint, tube.axis[0]]),
        half_depth_mm=0.36 * tube.width_mm,
        cortex_mm=tube.body.shell_mm,
        shell_mm=tube.body.shell_mm,
        strength=tube.body.density * (1.4 if tube.family is Family.FOREARM else 1.0),
    )


def _scar_bone(tube: _Tube) -> Bone:
    """The dense line where the growth plate was; it fades over three years."""
    since = tube.body.bone_age_months - EPIPHYSES[tube.body.sex][tube.name].fusion_end_months
    line = _box(tube, tube.plate_mm - tube.gap_mm, tube.plate_mm - 0.2 * tube.gap_mm, 0.45)
    return Bone(
        name=f"{tube.name} scar",
        centres=(),
        outlines=(line,),
        axis=tube.axis,
        half_depth_mm=1.5,
        cortex_mm=0.3,
        shell_mm=0.3,
        strength=0.5 * tube.fused * float(np.clip(1 - since / 36, 0.15, 1)),
    )
