"""What the random transforms of training make of a radiograph."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from inference.training import dataset  # noqa: E402 - after the check for torch
from inference.training.dataset import (  # noqa: E402
    _RandJpegd,
    _Shuffled,
    random_transforms,
    random_views,
)
from inference.training.run_config import AugmentationConfig, RunConfig, read_run_config  # noqa: E402
from tests.builders.images import drawn_hand  # noqa: E402

SIDE = 96
CONFIGS = sorted((Path(dataset.__file__).parent / "configs").glob("lite*.toml"))


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


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return read_run_config(CONFIGS[0])


@pytest.fixture(scope="module")
def still(config: RunConfig) -> AugmentationConfig:
    """Nothing moves, but for the mirror."""
    return replace(config.augmentation, rotate_degrees=0.0, scale=0.0, translate=0.0, shear=0.0)


def test_a_view_that_does_not_move_is_the_image_or_its_mirror(still: AugmentationConfig) -> None:
    torch.manual_seed(1)
    images = torch.rand(64, 1, 32, 32) * 255
    views = random_views(images, still)
    straight = torch.isclose(views, images, atol=0.05).flatten(1).all(dim=1)
    mirrored = torch.isclose(views, images.flip(3), atol=0.05).flatten(1).all(dim=1)
    assert (straight ^ mirrored).all()
    assert 15 < int(mirrored.sum()) < 49


@pytest.mark.parametrize(
    ("changed", "turned", "at_least", "at_most"),
    [
        ({"rotate_degrees": 20.0}, True, 1.0, 14.0),
        ({"translate": 0.1}, False, 0.5, 9.1),
        ({"scale": 0.1}, False, 0.5, 4.0),
        ({"shear": 0.1}, False, 0.5, 4.0),
    ],
)
def test_a_view_moves_as_far_as_the_run_allows(
    still: AugmentationConfig,
    changed: dict[str, Any],
    turned: bool,
    at_least: float,
    at_most: float,
) -> None:
    """A dot, 32 pixels above the middle of 64 x 64, seen where it lands."""
    torch.manual_seed(2)
    images = torch.zeros(400, 1, 64, 64)
    images[:, :, 2:5, 31:33] = 255.0
    views = random_views(images, replace(still, **changed))[:, 0]
    places = torch.arange(64, dtype=torch.float32)
    weight = views.sum(dim=(1, 2)).clamp_min(1e-6)
    across = (views.sum(dim=1) * places).sum(dim=1) / weight - 31.5
    down = (views.sum(dim=2) * places).sum(dim=1) / weight - 3.0
    seen = views.sum(dim=(1, 2)) > 600.0
    moved = torch.hypot(across, down)[seen]
    assert at_least < float(moved.max()) < at_most
    assert (moved < 0.1).float().mean() > 0.05  # one in ten stays
    if turned:  # on a circle around the middle
        radius = torch.hypot(across, 28.5 - down)[seen]
        assert torch.allclose(radius, torch.tensor(28.5), atol=0.7)
    left, right = (across[seen] < -0.3).sum(), (across[seen] > 0.3).sum()
    if "scale" not in changed:
        assert min(left, right) > 50  # both ways alike
    assert views.min() >= 0.0
    assert views.max() <= 255.01  # rounding


def test_every_epoch_shows_each_radiograph_once_in_an_order_of_its_own(config: RunConfig) -> None:
    batches = replace(config, batch=8)
    places = list(islice(_Shuffled(80, batches, 0), 240))
    epochs = [places[begin : begin + 80] for begin in (0, 80, 160)]
    assert all(sorted(epoch) == list(range(80)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(islice(_Shuffled(80, replace(batches, seed=1), 0), 80)) != epochs[0]


@pytest.mark.parametrize("step", [1, 9, 10, 25])
def test_a_run_that_goes_on_sees_the_batches_that_it_had_not_seen(
    config: RunConfig, step: int
) -> None:
    batches = replace(config, batch=8)
    straight = list(islice(_Shuffled(83, batches, 0), 320))  # three are left over in each epoch
    resumed = list(islice(_Shuffled(83, batches, step), 320 - 8 * step))
    assert resumed == straight[8 * step :]
