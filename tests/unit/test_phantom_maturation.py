"""What the phantom draws at which bone age, checked on the drawn bones and not on the tables."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from inference.phantom.bone import Bone, Points
from inference.phantom.maturation import (
    CENTRES,
    EPIPHYSES,
    MAX_BONE_AGE_MONTHS,
    MIN_BONE_AGE_MONTHS,
    Sex,
    ossified_centres,
    stature_share,
)
from inference.phantom.projection import Frame, bone_attenuation
from inference.phantom.skeleton import Pose, Skeleton, skeleton

SEXES: tuple[Sex, ...] = ("M", "F")
POSE = Pose(
    spread=1.0, thumb_degrees=0.0, wrist_degrees=0.0, bend_degrees=(0.0,) * 15, width=1.0, fat=1.0
)
PHALANGES = {name for name in EPIPHYSES["M"] if name[:2] in ("PP", "MP", "DP")}
FINGER_BONES = {name for name in EPIPHYSES["M"] if name not in ("radius", "ulna")}


@cache
def hand(sex: Sex, bone_age_months: float) -> Skeleton:
    return skeleton(sex=sex, bone_age_months=bone_age_months, pose=POSE)


def drawn_centres(sex: Sex, bone_age_months: float) -> set[str]:
    return {centre for bone in hand(sex, bone_age_months).bones for centre in bone.centres}


def bone_named(sex: Sex, bone_age_months: float, name: str) -> Bone:
    return next(bone for bone in hand(sex, bone_age_months).bones if bone.name == name)


def epiphyses(*names: str) -> set[str]:
    return {f"{name} epiphysis" for name in names}


def unfused(sex: Sex, bone_age_months: float) -> set[str]:
    names = {bone.name for bone in hand(sex, bone_age_months).bones}
    return {name for name in EPIPHYSES[sex] if f"{name} epiphysis" in names}


def width_across(outline: Points, axis: Points) -> float:
    along = (axis[1] - axis[0]) / np.hypot(*(axis[1] - axis[0]))
    return float(np.ptp(outline @ np.array([along[1], -along[0]])))


def onsets() -> list[tuple[Sex, str, float]]:
    rows = [(s, f"{n} epiphysis", a.onset_months) for s in SEXES for n, a in EPIPHYSES[s].items()]
    rows += [(s, n, a.onset_months) for s in SEXES for n, a in CENTRES[s].items()]
    return [row for row in rows if row[2] > MIN_BONE_AGE_MONTHS]


@pytest.mark.parametrize(("sex", "centre", "onset_months"), onsets())
def test_every_centre_appears_at_its_age(sex: Sex, centre: str, onset_months: float) -> None:
    assert centre not in drawn_centres(sex, onset_months - 0.5)
    assert centre in drawn_centres(sex, onset_months + 0.5)


@pytest.mark.parametrize("sex", SEXES)
def test_centres_never_vanish_and_are_all_there_at_the_end(sex: Sex) -> None:
    counts = []
    before: set[str] = set()
    for age in np.arange(MIN_BONE_AGE_MONTHS, MAX_BONE_AGE_MONTHS + 1, 4.0):
        centres = drawn_centres(sex, float(age))
        assert before <= centres == ossified_centres(sex=sex, bone_age_months=float(age))
        before = centres
        counts.append(len(centres))
    assert counts[0] == 2
    assert counts[-1] == len(EPIPHYSES[sex]) + len(CENTRES[sex]) == 31


def test_girls_are_never_behind_boys() -> None:
    for age in np.arange(MIN_BONE_AGE_MONTHS, MAX_BONE_AGE_MONTHS, 6.0):
        assert drawn_centres("M", float(age)) <= drawn_centres("F", float(age))


@pytest.mark.parametrize(
    ("sex", "bone_age_months", "visible"),
    [
        ("M", 14.5, epiphyses("radius", "PP3")),
        ("M", 24.5, epiphyses("PP5", "MP3", "MP4", "DP3", "DP4")),
        ("M", 30.5, epiphyses("PP1", "MC1", "MP2", "DP2", "DP5")),
        ("M", 42.0, {"lunate", *epiphyses("DP2", "DP5")}),
        ("M", 48.0, epiphyses(*PHALANGES)),
        ("M", 55.0, {"trapezium"}),
        ("M", 84.0, epiphyses("ulna")),
        ("M", 121.0, {"pisiform"}),
        ("M", 157.0, {"adductor sesamoid"}),
        ("F", 12.5, epiphyses("radius", "MC2", "MC3", "PP2", "PP3", "PP4")),
        ("F", 18.0, epiphyses("PP5", "MC5")),
        ("F", 24.5, {"triquetrum", *epiphyses("DP3", "DP4", "DP5", "PP1", "MC1")}),
        ("F", 36.0, {"lunate"}),
        ("F", 48.0, {"trapezium", "scaphoid", "trapezoid"}),
        ("F", 84.0, epiphyses("ulna")),
        ("F", 109.0, {"pisiform"}),
        ("F", 133.0, {"adductor sesamoid", "flexor sesamoid"}),
    ],
)
def test_the_published_timeline_is_kept(
    sex: Sex, bone_age_months: float, visible: set[str]
) -> None:
    assert visible <= drawn_centres(sex, bone_age_months)


def test_infants_show_capitate_and_hamate_only() -> None:
    assert drawn_centres("M", 8.0) == drawn_centres("F", 8.0) == {"capitate", "hamate"}


def test_growth_plates_close_in_the_order_of_the_timeline() -> None:
    everything = set(EPIPHYSES["M"])
    assert unfused("M", 168.0) == everything
    assert unfused("F", 150.0) == everything
    assert unfused("F", 159.0) == everything - {"DP1", "DP2", "DP3", "DP4", "DP5", "MC1", "PP5"}
    assert unfused("M", 192.0) == {"radius", "ulna"}
    assert unfused("F", 180.0) == {"radius"}
    assert unfused("F", 204.0) == set()


@pytest.mark.parametrize("sex", SEXES)
@pytest.mark.parametrize("name", ["PP3", "MP3", "DP3", "MC3", "radius"])
def test_an_epiphysis_widens_to_its_shaft(sex: Sex, name: str) -> None:
    ages = EPIPHYSES[sex][name]
    ratios = []
    for age in np.linspace(ages.onset_months + 1, ages.full_width_months, 5):
        cap = bone_named(sex, float(age), f"{name} epiphysis")
        shaft = bone_named(sex, float(age), name)
        cap_width = width_across(cap.outlines[0], shaft.axis)
        ratios.append(cap_width / width_across(shaft.outlines[0], shaft.axis))
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.5
    assert ratios[-1] == pytest.approx(1.0, abs=0.08)


def test_proximal_phalanges_of_boys_pass_half_the_shaft_at_thirty_months() -> None:
    for name in ("PP2", "PP3", "PP4"):
        cap = bone_named("M", 30.0, f"{name} epiphysis")
        shaft = bone_named("M", 30.0, name)
        ratio = width_across(cap.outlines[0], shaft.axis) / width_across(
            shaft.outlines[0], shaft.axis
        )
        assert 0.45 < ratio < 0.75


@pytest.mark.parametrize("sex", SEXES)
def test_bones_grow_with_the_share_of_mature_height(sex: Sex) -> None:
    def third_metacarpal_mm(age: float) -> float:
        base, head = hand(sex, age).digits[3][:2]
        return float(np.hypot(*(head - base)))

    assert third_metacarpal_mm(216.0) == pytest.approx({"M": 66.0, "F": 61.4}[sex], abs=0.5)
    for age in (24.0, 84.0, 144.0):
        share = stature_share(sex=sex, bone_age_months=age)
        end = stature_share(sex=sex, bone_age_months=216.0)
        expected = third_metacarpal_mm(216.0) * share / end
        assert third_metacarpal_mm(age) == pytest.approx(expected)


def test_the_middle_finger_is_longest_and_the_thumb_lies_right() -> None:
    digits = hand("F", 120.0).digits
    reach = {digit: -joints[-1][1] for digit, joints in digits.items()}
    assert max(reach, key=lambda digit: reach[digit]) == 3
    assert digits[1][-1][0] > digits[2][-1][0] > digits[4][-1][0] > digits[5][-1][0]


@pytest.mark.parametrize("sex", SEXES)
def test_every_piece_of_bone_is_drawn_where_it_lies(sex: Sex) -> None:
    frame = Frame(rows=700, columns=500, pixel_mm=0.4, turn_degrees=3.0, origin=(240.0, 480.0))
    whole = hand(sex, 132.0)
    for bone in whole.bones:
        alone = bone_attenuation(replace(whole, bones=(bone,)), frame)
        rows, columns = np.nonzero(alone)
        low, high = (
            np.vstack([frame.to_pixels(outline) for outline in bone.outlines]).min(axis=0),
            np.vstack([frame.to_pixels(outline) for outline in bone.outlines]).max(axis=0),
        )
        assert alone.max() > 0.02, bone.name
        assert low[0] - 2 < columns.min() <= columns.max() < high[0] + 2, bone.name
        assert low[1] - 2 < rows.min() <= rows.max() < high[1] + 2, bone.name
