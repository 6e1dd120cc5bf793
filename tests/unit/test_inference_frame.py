"""A plain frame is cut away, a plain background is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.frame import within_frame
from tests.builders.images import drawn_hand

ALL = (slice(0, 300), slice(0, 240))


@pytest.fixture(scope="module")
def radiograph() -> NDArray[np.uint16]:
    """A hand before a background that is not plain."""
    hand = drawn_hand(rows=300, columns=240).astype(np.float64)
    noise = np.random.default_rng(4).normal(400, 40, hand.shape)
    return np.clip(hand * 0.8 + noise, 0, 4095).astype(np.uint16)


@pytest.mark.parametrize("level", [0, 1500, 4095])
@pytest.mark.parametrize("widths", [(30, 20, 10, 40), (0, 0, 60, 60), (0, 50, 0, 0), (1, 1, 1, 1)])
def test_a_plain_frame_of_any_grey_is_left_out(
    radiograph: NDArray[np.uint16], level: int, widths: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = widths
    framed = np.pad(radiograph, ((top, bottom), (left, right)), constant_values=level)
    rows, columns = within_frame(framed)
    assert np.array_equal(framed[rows, columns], radiograph)


def test_a_frame_around_a_frame_is_left_out_too(radiograph: NDArray[np.uint16]) -> None:
    framed = np.pad(np.pad(radiograph, 25), 40, constant_values=4095)
    rows, columns = within_frame(framed)
    assert np.array_equal(framed[rows, columns], radiograph)


def test_an_image_without_a_frame_stays_whole(radiograph: NDArray[np.uint16]) -> None:
    assert within_frame(radiograph) == ALL


@pytest.mark.parametrize("level", [0, 4095])
def test_a_hand_before_a_plain_background_stays_whole(level: int) -> None:
    """Its first line that is not plain holds a finger tip only."""
    hand = drawn_hand(rows=300, columns=240)
    plain = np.where(hand < 0.2 * 4095, level, hand)
    assert within_frame(plain) == ALL


def test_a_frame_that_jpeg_has_blurred_is_left_out(radiograph: NDArray[np.uint16]) -> None:
    framed = np.pad(radiograph // 16, 32, constant_values=250).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(framed).save(coded, "JPEG", quality=75)
    with Image.open(coded) as image:
        rows, columns = within_frame(np.asarray(image))
    assert abs(rows.start - 32) <= 8
    assert abs(columns.start - 32) <= 8
    assert abs(rows.stop - 332) <= 8
    assert abs(columns.stop - 272) <= 8


def test_a_frame_wider_than_what_it_frames_is_no_frame(radiograph: NDArray[np.uint16]) -> None:
    wide = np.pad(radiograph, ((0, 0), (400, 0)), constant_values=0)
    assert within_frame(wide) == (slice(0, 300), slice(0, 640))


@pytest.mark.parametrize("level", [0, 7])
def test_a_blank_image_stays_whole(level: int) -> None:
    assert within_frame(np.full((300, 240), level, dtype=np.uint16)) == ALL


def test_an_image_of_one_pixel_stays_whole() -> None:
    assert within_frame(np.zeros((1, 1))) == (slice(0, 1), slice(0, 1))
