"""The drawn pixels: repeatable, of the promised form, and accepted as a hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.localize import find_hand
from inference.phantom.exposure import Border, Exposure, add_marker, expose
from inference.phantom.maturation import Sex
from inference.phantom.radiograph import draw
from inference.preprocess import to_stored_size
from inference.quality import is_blank, is_plausible, is_saturated
from tests.builders.exams import drawn_radiograph

PLAIN = Exposure(
    border=Border.NONE,
    field=(0.1, 0.1, 0.9, 0.9),
    field_degrees=0.0,
    heel=0.0,
    black=400.0,
    white=4000.0,
    contrast=0.0,
    noise=0.0,
    marker_places=(0, 1, 2, 3, 4, 5),
    marker_degrees=0.0,
)


def exposed(
    border: Border, attenuation: float = 0.0
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    flat = np.full((400, 300), attenuation, dtype=np.float32)
    exposure = replace(PLAIN, border=border)
    rng = np.random.default_rng(0)
    return expose(flat, exposure, pixel_mm=0.5, size=(400, 300), rng=rng)


def test_equal_arguments_give_equal_bytes() -> None:
    first = draw(bone_age_months=100.0, sex="F", seed=7, rows=400, columns=300)
    again = draw(bone_age_months=100.0, sex="F", seed=7, rows=400, columns=300)
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.pixel_spacing_mm == again.pixel_spacing_mm


@pytest.mark.parametrize(
    ("bone_age_months", "sex", "seed"), [(100.0, "F", 8), (100.0, "M", 7), (112.0, "F", 7)]
)
def test_another_seed_sex_or_age_gives_another_image(
    bone_age_months: float, sex: Sex, seed: int
) -> None:
    reference = drawn_radiograph(bone_age_months=100.0, sex="F", seed=7)
    other = drawn_radiograph(bone_age_months=bone_age_months, sex=sex, seed=seed)
    differs = reference.pixels.astype(int) - other.pixels
    assert (np.abs(differs) > 100).mean() > 0.02


def test_pixels_are_twelve_bits_of_the_asked_size() -> None:
    pixels = draw(bone_age_months=150.0, sex="M", seed=3).pixels
    assert pixels.shape == (2000, 1500)
    assert pixels.dtype == np.uint16
    assert 2500 < pixels.max() <= 4095


@pytest.mark.parametrize("bone_age_months", [7.9, 216.1])
def test_ages_without_a_drawing_are_refused(bone_age_months: float) -> None:
    with pytest.raises(ValueError, match="8 to 216"):
        draw(bone_age_months=bone_age_months, sex="F", seed=0)


@pytest.mark.parametrize("sex", ["M", "F"])
@pytest.mark.parametrize("bone_age_months", [8.0, 36.0, 84.0, 132.0, 180.0, 216.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_hand_is_found_and_fills_a_plausible_share(
    sex: Sex, bone_age_months: float, seed: int
) -> None:
    radiograph = drawn_radiograph(bone_age_months=bone_age_months, sex=sex, seed=seed)
    stored = to_stored_size(radiograph.pixels)
    found = find_hand(stored)
    assert not is_blank(stored)
    assert not is_saturated(stored)
    assert found is not None
    assert is_plausible(found)
    assert 0.15 < found.area_share < 0.45
    assert 0.55 < found.height_share < 0.95
    assert 0.5 < found.width_share < 0.95


@pytest.mark.parametrize("sex", ["M", "F"])
def test_a_pixel_of_a_grown_hand_is_larger_than_one_of_an_infant(sex: Sex) -> None:
    infant = drawn_radiograph(bone_age_months=8.0, sex=sex, seed=1)
    grown = drawn_radiograph(bone_age_months=216.0, sex=sex, seed=1)
    assert 1.3 < grown.pixel_spacing_mm / infant.pixel_spacing_mm < 2.5


def test_more_attenuation_is_brighter() -> None:
    air, flesh, bone = (exposed(Border.NONE, a)[200, 150] for a in (0.0, 0.4, 1.0))
    assert air == 400
    assert air < flesh < bone


def test_a_shutter_blackens_what_lies_outside_the_field() -> None:
    pixels = exposed(Border.SHUTTER)
    assert pixels[:36].max() == pixels[-36:].max() == pixels[:, :26].max() == 0
    assert pixels[60:340, 50:250].min() == 400


def test_blades_shine_at_the_edge_of_an_open_field() -> None:
    middle_row = exposed(Border.UNEXPOSED)[200].astype(int)
    assert middle_row[30] > middle_row[5] + 300
    assert middle_row[30] > middle_row[60] + 300
    assert middle_row[60] == 400


def test_the_marker_avoids_the_hand() -> None:
    empty = np.zeros((600, 450), dtype=np.float32)
    depth_mm = np.full((600, 450), -50.0, dtype=np.float32)
    depth_mm[:300] = 10.0
    marked = add_marker(empty, depth_mm, PLAIN, pixel_mm=0.5)
    assert marked.max() > 1
    assert not marked[:300].any()


def test_no_marker_is_laid_on_the_hand_where_there_is_no_room() -> None:
    empty = np.zeros((600, 450), dtype=np.float32)
    everywhere = np.full((600, 450), 10.0, dtype=np.float32)
    assert not add_marker(empty, everywhere, PLAIN, pixel_mm=0.5).any()
