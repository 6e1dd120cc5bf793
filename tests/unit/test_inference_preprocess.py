"""The network's input: the same grey levels for training and both engines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.prediction import HandBox
from inference.preprocess import STORED_SIDE, cut_out, to_network_input, to_stored_size, widened

HAND = HandBox(left=50.0, top=100.0, right=150.0, bottom=250.0)
WHOLE = HandBox(left=0.0, top=0.0, right=299.0, bottom=299.0)


def waves() -> NDArray[np.uint16]:
    y, x = np.mgrid[:800, :600]
    return np.asarray(2000 + 1500 * np.sin(x / 50) * np.cos(y / 70), dtype=np.uint16)


def ramp() -> NDArray[np.float32]:
    """Column c has the grey level c."""
    return np.tile(np.arange(STORED_SIDE, dtype=np.float32), (STORED_SIDE, 1))


def test_a_known_image_gives_the_recorded_grey_levels() -> None:
    found = to_network_input(to_stored_size(waves()), HAND, 160)
    recorded = {(0, 0): 1, (40, 40): 138, (80, 120): 13, (159, 159): 131, (100, 20): 159}
    assert found.shape == (160, 160)
    assert found.dtype == np.uint8
    assert {place: int(found[place]) for place in recorded} == recorded


def test_the_network_sees_the_hand_and_six_percent_of_it_around() -> None:
    assert widened(HAND) == HandBox(left=44.0, top=91.0, right=156.0, bottom=259.0)
    assert widened(WHOLE) == WHOLE
    found = to_network_input(ramp(), HAND, 112)
    low, high = np.percentile(ramp()[91:259, 44:156], (2, 99))
    expected = np.clip((np.arange(44, 156) - low) / (high - low), 0, 1) * 255
    assert np.abs(found[50] - expected).max() <= 0.5


def test_what_lies_outside_the_hand_does_not_change_its_grey_levels() -> None:
    stored = to_stored_size(waves())
    marked = stored.copy()
    marked[:80], marked[:, 170:] = 60000.0, 0.0
    found, expected = to_network_input(marked, HAND, 160), to_network_input(stored, HAND, 160)
    assert np.array_equal(found, expected)


def test_a_hand_cut_out_lies_as_the_network_sees_it() -> None:
    cut = cut_out(ramp(), HAND)
    assert cut.shape == (STORED_SIDE, STORED_SIDE)
    assert cut[0, 0] == pytest.approx(44, abs=0.6)
    assert cut[-1, -1] == pytest.approx(155, abs=0.6)


def test_the_stored_size_is_pillows_bilinear_resize_up_to_its_two_roundings() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1000, 700)).astype(np.uint8)
    resized = Image.fromarray(image).resize((STORED_SIDE, STORED_SIDE), Image.Resampling.BILINEAR)
    assert np.abs(to_stored_size(image) - np.asarray(resized, dtype=np.float32)).max() <= 1.01


def test_the_stored_size_stays_as_it_is() -> None:
    stored = to_stored_size(waves())
    assert np.array_equal(to_stored_size(stored), stored)


def test_brightness_and_contrast_of_the_detector_do_not_matter() -> None:
    stored = np.random.default_rng(3).integers(0, 4096, (299, 299)).astype(np.float32)
    other = to_network_input(stored * 3.5 + 900, HAND, 160)
    assert np.abs(to_network_input(stored, HAND, 160).astype(int) - other).max() <= 1


def test_a_hand_without_contrast_becomes_black() -> None:
    assert not to_network_input(np.full((299, 299), 7, np.float32), HAND, 160).any()


def test_colour_images_are_refused() -> None:
    with pytest.raises(ValueError, match="single-channel"):
        to_stored_size(np.zeros((300, 300, 3)))
