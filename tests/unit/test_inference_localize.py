"""Finding one hand or two, and the computed checks beside the gate."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.localize import Hand, find_hand, find_two_hands
from inference.preprocess import STORED_SIDE, to_stored_size
from inference.quality import is_blank, is_plausible, is_saturated
from tests.builders.images import RSNA, drawn_hand, real_pixels, real_radiographs

Grey = NDArray[np.float32]


def has_plausible_hand(stored: Grey) -> bool:
    """Whether a hand of plausible size and form is found."""
    hand = find_hand(stored)
    return hand is not None and is_plausible(hand)


def stored_images(image_ids: list[str]) -> dict[str, Grey]:
    """Radiographs of the archive, 299 x 299."""
    with zipfile.ZipFile(RSNA / "rsna-299.zip") as archive:
        return {
            image_id: np.asarray(
                Image.open(io.BytesIO(archive.read(f"{image_id}.jpg"))).convert("L"),
                dtype=np.float32,
            )
            for image_id in image_ids
        }


def edges(hand: Hand) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box."""
    return hand.box.left, hand.box.top, hand.box.right, hand.box.bottom


def test_the_box_of_a_drawn_hand_encloses_it() -> None:
    pixels = np.pad(drawn_hand(rows=1200, columns=900), ((300, 0), (100, 400)), mode="edge")
    hand = find_hand(to_stored_size(pixels))
    assert hand is not None
    left, top, right, bottom = edges(hand)
    rows, columns = np.nonzero(to_stored_size(pixels) > 0.2 * 4095)
    margin = 0.04 * STORED_SIDE
    assert columns.min() - margin < left <= columns.min() + margin
    assert columns.max() - margin < right <= columns.max() + margin
    assert rows.min() - margin < top <= rows.min() + margin
    middle_of_the_palm = (300 + 0.6 * 1200) / 1500 * STORED_SIDE
    assert middle_of_the_palm < bottom <= STORED_SIDE


def test_polarity_does_not_move_the_box() -> None:
    stored = to_stored_size(drawn_hand())
    bright, dark = find_hand(stored), find_hand(4095 - stored)
    assert bright is not None
    assert dark is not None
    assert edges(dark) == pytest.approx(edges(bright), abs=4)


@pytest.mark.parametrize("brightness", [0.2, 0.95])
def test_a_collimation_frame_does_not_widen_the_box(brightness: float) -> None:
    pixels = np.pad(drawn_hand(), 160, mode="constant", constant_values=200)
    framed = pixels.copy()
    for inset in range(100, 112):
        framed[inset, 100:-100] = framed[-inset - 1, 100:-100] = brightness * 4095
        framed[100:-100, inset] = framed[100:-100, -inset - 1] = brightness * 4095
    free, inside = find_hand(to_stored_size(pixels)), find_hand(to_stored_size(framed))
    assert free is not None
    assert inside is not None
    assert edges(inside)[:3] == pytest.approx(edges(free)[:3], abs=9)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gap", [0, 200])
def test_two_hands_are_found_left_one_first(gap: int, inverted: bool) -> None:
    hand = drawn_hand(rows=640, columns=512)
    both = np.hstack([hand, np.full((640, gap), hand[0, 0]), hand[:, ::-1]])
    stored = to_stored_size(both)
    found = find_two_hands(4095 - stored if inverted else stored)
    assert found is not None
    alone = find_hand(to_stored_size(hand))
    assert alone is not None
    share = 512 / both.shape[1]
    left, top, right, bottom = edges(alone)
    assert edges(found[0]) == pytest.approx((left * share, top, right * share, bottom), abs=9)
    mirrored = (STORED_SIDE - right * share, top, STORED_SIDE - left * share, bottom)
    assert edges(found[1]) == pytest.approx(mirrored, abs=9)


def test_one_hand_is_not_two() -> None:
    hand = drawn_hand()
    beside_nothing = np.hstack([hand, np.full_like(hand, hand[0, 0])])
    assert find_two_hands(to_stored_size(beside_nothing)) is None
    assert find_two_hands(noise()) is None


def test_two_real_hands_are_found_where_each_lies() -> None:
    real_radiographs()
    with (RSNA / "labels.csv").open(newline="", encoding="utf-8") as file:
        ids = sorted(row["image_id"] for row in csv.DictReader(file))
    chosen = np.random.default_rng(12).choice(ids, 200, replace=False).tolist()
    images = list(stored_images(chosen).values())
    overlaps = []
    for first, second in zip(images[::2], images[1::2], strict=True):
        found = find_two_hands(to_stored_size(np.hstack([first, second[:, ::-1]])))
        alone = find_hand(first), find_hand(second[:, ::-1])
        if found is None or None in alone:
            overlaps.append(0.0)
            continue
        for hand, single, begin in zip(found, alone, (0.0, STORED_SIDE / 2), strict=True):
            assert single is not None
            left, top, right, bottom = edges(single)
            expected = (begin + left / 2, top, begin + right / 2, bottom)
            overlaps.append(overlap(edges(hand), expected))
    assert np.mean(np.array(overlaps) > 0.75) >= 0.9


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Common area over joint area."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    along = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, across) * max(0.0, along)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def test_the_box_holds_the_ossification_regions_of_labelled_radiographs() -> None:
    real_radiographs()
    regions: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    with (RSNA / "ossification_boxes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = tuple(float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            regions[row["image_id"]].append(box)
    with zipfile.ZipFile(RSNA / "rsna-299.zip") as archive:
        ids = [key for key in regions if f"{key}.jpg" in archive.namelist()][::3]
    held, areas = [], []
    for image_id, stored in stored_images(ids).items():
        hand = find_hand(stored)
        assert hand is not None
        left, top, right, bottom = np.array(regions[image_id]).T
        found = np.array(edges(hand)) / STORED_SIDE
        outside = (found[0] - left.min(), found[1] - top.min(),
                   right.max() - found[2], bottom.max() - found[3])  # fmt: skip
        held.append(max(outside) <= 0.02)
        areas.append((found[2] - found[0]) * (found[3] - found[1]))
    assert len(ids) > 100
    assert np.mean(held) >= 0.97
    assert np.median(areas) < 0.7


def test_all_full_size_radiographs_pass_the_checks() -> None:
    for row in real_radiographs():
        stored = to_stored_size(real_pixels(row["image_id"]))
        assert has_plausible_hand(stored), row["image_id"]
        assert not is_blank(stored), row["image_id"]
        assert not is_saturated(stored), row["image_id"]


def test_999_of_1000_radiographs_pass_the_checks() -> None:
    real_radiographs()
    with (RSNA / "labels.csv").open(newline="", encoding="utf-8") as file:
        ids = sorted(row["image_id"] for row in csv.DictReader(file))
    chosen = np.random.default_rng(11).choice(ids, 1000, replace=False).tolist()
    images = stored_images(chosen).values()
    passed = [
        has_plausible_hand(image) and not is_blank(image) and not is_saturated(image)
        for image in images
    ]
    assert sum(passed) >= 997


def ramp() -> Grey:
    """Dark left, bright right."""
    return np.tile(np.linspace(0, 255, STORED_SIDE, dtype=np.float32), (STORED_SIDE, 1))


def noise() -> Grey:
    """An exposure without a patient."""
    values = np.random.default_rng(5).normal(1000, 30, (STORED_SIDE, STORED_SIDE))
    return values.astype(np.float32)


def marker_only() -> Grey:
    """A blank exposure with a side marker."""
    blank = np.zeros((STORED_SIDE, STORED_SIDE), dtype=np.float32)
    blank[10:40, 10:25] = 255
    return blank


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((STORED_SIDE, STORED_SIDE), np.float32),
        np.full((STORED_SIDE, STORED_SIDE), 4095, np.float32),
        marker_only(),
    ],
    ids=["black", "white", "marker only"],
)
def test_images_without_contrast_are_blank(image: Grey) -> None:
    assert is_blank(image)


@pytest.mark.parametrize("image", [ramp(), noise()], ids=["ramp", "noise"])
def test_images_with_contrast_but_no_form_show_no_hand(image: Grey) -> None:
    assert not is_blank(image)
    assert not has_plausible_hand(image)


def test_an_overexposed_image_is_saturated_and_a_hand_is_not() -> None:
    stored = to_stored_size(drawn_hand())
    assert is_saturated(np.minimum(4095 - stored, 3500))
    assert not is_saturated(stored)
