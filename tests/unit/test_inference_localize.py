"""Finding the hand, and refusing images without one."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.localize import find_hand
from inference.prediction import Rejection
from inference.preprocess import STORED_SIDE, to_stored_size
from inference.quality import is_plausible, rejection_of_grey
from tests.builders.images import RSNA, drawn_hand, real_pixels, real_radiographs

Grey = NDArray[np.float32]


def accepted(stored: Grey) -> bool:
    """Whether the checks let an image through to the network."""
    hand = find_hand(stored, STORED_SIDE, STORED_SIDE)
    return rejection_of_grey(stored) is None and hand is not None and is_plausible(hand)


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


def test_the_box_of_a_drawn_hand_encloses_it_in_source_coordinates() -> None:
    pixels = np.pad(drawn_hand(rows=1200, columns=900), ((300, 0), (100, 400)), mode="edge")
    hand = find_hand(to_stored_size(pixels), *pixels.shape)
    assert hand is not None
    rows, columns = np.nonzero(pixels > 0.2 * 4095)
    margin = 0.04 * max(pixels.shape)
    assert columns.min() - margin < hand.box.left <= columns.min() + margin
    assert columns.max() - margin < hand.box.right <= columns.max() + margin
    assert rows.min() - margin < hand.box.top <= rows.min() + margin
    middle_of_the_palm = 300 + 0.6 * 1200
    assert middle_of_the_palm < hand.box.bottom <= 1500


@pytest.mark.parametrize("brightness", [0.2, 0.95])
def test_a_collimation_frame_does_not_widen_the_box(brightness: float) -> None:
    pixels = np.pad(drawn_hand(), 160, mode="constant", constant_values=200)
    framed = pixels.copy()
    for inset in range(100, 112):
        framed[inset, 100:-100] = framed[-inset - 1, 100:-100] = brightness * 4095
        framed[100:-100, inset] = framed[100:-100, -inset - 1] = brightness * 4095
    free = find_hand(to_stored_size(pixels), *pixels.shape)
    inside = find_hand(to_stored_size(framed), *framed.shape)
    assert free is not None
    assert inside is not None
    for side in ("left", "top", "right"):
        assert getattr(inside.box, side) == pytest.approx(getattr(free.box, side), abs=25)


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
        hand = find_hand(stored, 1, 1)
        assert hand is not None
        left, top, right, bottom = np.array(regions[image_id]).T
        found = hand.box
        outside = (found.left - left.min(), found.top - top.min(),
                   right.max() - found.right, bottom.max() - found.bottom)  # fmt: skip
        held.append(max(outside) <= 0.02)
        areas.append((found.right - found.left) * (found.bottom - found.top))
    assert len(ids) > 100
    assert np.mean(held) >= 0.97
    assert np.median(areas) < 0.7


def test_all_full_size_radiographs_pass_the_checks() -> None:
    for row in real_radiographs():
        assert accepted(to_stored_size(real_pixels(row["image_id"]))), row["image_id"]


def test_999_of_1000_radiographs_pass_and_none_does_when_inverted() -> None:
    real_radiographs()
    with (RSNA / "labels.csv").open(newline="", encoding="utf-8") as file:
        ids = sorted(row["image_id"] for row in csv.DictReader(file))
    chosen = np.random.default_rng(11).choice(ids, 1000, replace=False).tolist()
    images = stored_images(chosen)
    assert sum(accepted(image) for image in images.values()) >= 995
    inverted = [image.max() - image for image in list(images.values())[:100]]
    assert not any(accepted(image) for image in inverted)


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


def overexposed() -> Grey:
    """Everything around the hand is at the brightest level."""
    return np.minimum(4095 - to_stored_size(drawn_hand()), 3500)


@pytest.mark.parametrize(
    ("image", "rejection"),
    [
        (np.zeros((STORED_SIDE, STORED_SIDE), np.float32), Rejection.IMAGE_BLANK),
        (np.full((STORED_SIDE, STORED_SIDE), 4095, np.float32), Rejection.IMAGE_BLANK),
        (marker_only(), Rejection.IMAGE_BLANK),
        (overexposed(), Rejection.IMAGE_SATURATED),
        (ramp(), None),
        (noise(), None),
    ],
    ids=["black", "white", "marker only", "overexposed", "ramp", "noise"],
)
def test_images_without_a_hand_are_refused(image: Grey, rejection: Rejection | None) -> None:
    assert rejection_of_grey(image) is rejection
    assert not accepted(image)
