"""The network's input: the same grey levels for training and both engines."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inference.preprocess import STORED_SIDE, to_network_input, to_stored_size


def test_a_known_image_gives_the_recorded_grey_levels() -> None:
    y, x = np.mgrid[:800, :600]
    image = (2000 + 1500 * np.sin(x / 50) * np.cos(y / 70)).astype(np.uint16)
    found = to_network_input(image, 160)
    recorded = {(0, 0): 133, (40, 40): 112, (80, 120): 172, (159, 159): 98, (100, 20): 213}
    assert found.shape == (160, 160)
    assert found.dtype == np.uint8
    assert {place: int(found[place]) for place in recorded} == recorded


def test_the_stored_size_is_pillows_bilinear_resize_up_to_its_two_roundings() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1000, 700)).astype(np.uint8)
    resized = Image.fromarray(image).resize((STORED_SIDE, STORED_SIDE), Image.Resampling.BILINEAR)
    assert np.abs(to_stored_size(image) - np.asarray(resized, dtype=np.float32)).max() <= 1.01


def test_resizing_first_changes_nothing() -> None:
    image = np.random.default_rng(2).integers(0, 65536, (900, 1100)).astype(np.uint16)
    assert np.array_equal(
        to_network_input(image, 224), to_network_input(to_stored_size(image), 224)
    )


def test_brightness_and_contrast_of_the_detector_do_not_matter() -> None:
    image = np.random.default_rng(3).integers(0, 4096, (500, 400)).astype(np.float32)
    apart = to_network_input(image, 160).astype(int) - to_network_input(image * 3.5 + 900, 160)
    assert np.abs(apart).max() <= 1


def test_an_image_without_contrast_becomes_black() -> None:
    assert not to_network_input(np.full((300, 300), 7), 160).any()


def test_colour_images_are_refused() -> None:
    with pytest.raises(ValueError, match="single-channel"):
        to_network_input(np.zeros((300, 300, 3)), 160)
