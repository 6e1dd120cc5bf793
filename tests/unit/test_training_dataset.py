"""What the random transforms of training make of a radiograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from inference.training import dataset
from inference.training.dataset import _RandJpegd, random_transforms
from inference.training.run_config import read_run_config
from tests.builders.images import drawn_hand

SIDE = 96
CONFIGS = sorted((Path(dataset.__file__).parent / "configs").glob("lite0-*.toml"))


def hand() -> np.ndarray:
    return drawn_hand(rows=SIDE, columns=SIDE, levels=256).astype(np.uint8)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_views_differ_stay_in_range_and_repeat_with_the_seed(path: Path) -> None:
    config = read_run_config(path)

    def views() -> list[np.ndarray]:
        transforms = random_transforms(config.augmentation, SIDE)
        transforms.set_random_state(seed=7)
        return [transforms({"image": hand()})["image"].numpy() for _ in range(12)]

    first, again = views(), views()
    for view, repeated in zip(first, again, strict=True):
        assert view.shape == (1, SIDE, SIDE)
        assert view.dtype == np.float32
        assert view.min() >= 0.0
        assert view.max() <= 255.0
        assert np.array_equal(view, repeated)
    assert len({view.tobytes() for view in first}) == len(first)


def test_jpeg_of_low_quality_changes_more_than_of_high() -> None:
    image = hand()[None].astype(np.float32) / 255.0

    def change(quality: int) -> float:
        transform = _RandJpegd("image", prob=1.0, quality=(quality, quality))
        transform.set_random_state(seed=3)  # the same contrast and size for every quality
        coded = transform({"image": image})["image"]
        assert coded.shape == image.shape
        assert coded.dtype == np.float32
        assert coded.min() >= 0.0
        assert coded.max() <= 1.0
        return float(np.abs(coded - image).mean())

    assert 0.0 < change(95) < change(20)
    assert np.array_equal(_RandJpegd("image", 0.0, (20, 20))({"image": image})["image"], image)


def test_jpeg_keeps_the_brightness() -> None:
    image = np.full((1, SIDE, SIDE), 0.5, dtype=np.float32)
    transform = _RandJpegd("image", prob=1.0, quality=(90, 90))
    transform.set_random_state(seed=1)
    means = [transform({"image": image})["image"].mean() for _ in range(8)]
    assert np.allclose(means, 0.5, atol=0.02)
