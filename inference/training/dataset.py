"""MONAI datasets and random transforms for training."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset, set_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandCoarseDropoutd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandomizableTransform,
    ToTensord,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Sampler

from inference.training.prepare import Radiographs
from inference.training.run_config import AugmentationConfig, RunConfig

_MOVED_SHARE = 0.9


class _ToUnit(MapTransform):
    """uint8 (S, S) to float32 (1, S, S) in 0..1; the grey levels of the network divided by 255."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = np.asarray(out[key], dtype=np.float32)[None] / 255.0
        return out


class _ToGrey(MapTransform):
    """float 0..1 back to the network's 0..255."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = np.clip(np.asarray(out[key], dtype=np.float32), 0.0, 1.0) * 255.0
        return out


class _RandJpegd(RandomizableTransform, MapTransform):
    """JPEG compression of random quality, as an image may have met on its way: before its hand was
    enlarged and its contrast stretched, so at down to 0.6 of its side and 0.2 of its contrast."""

    def __init__(self, keys: str, prob: float, quality: tuple[int, int]) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.quality = quality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return out
        quality = int(self.R.randint(self.quality[0], self.quality[1] + 1))
        contrast, darkest = self.R.uniform(0.2, 1.0), self.R.uniform(0.0, 1.0)
        shrink = self.R.uniform(0.6, 1.0)
        for key in self.key_iterator(out):
            grey = np.clip(np.asarray(out[key][0], dtype=np.float32), 0.0, 1.0)
            low = 255.0 * (1.0 - contrast) * darkest
            levels = np.rint(grey * 255.0 * contrast + low).astype(np.uint8)
            small = [round(length * shrink) for length in levels.shape[::-1]]
            file = io.BytesIO()
            Image.fromarray(levels).resize(small).save(file, "JPEG", quality=quality)
            with Image.open(file) as image:
                back = np.asarray(image.resize(levels.shape[::-1]), dtype=np.float32)
            out[key] = np.clip((back - low) / (255.0 * contrast), 0.0, 1.0)[None]
        return out


def random_transforms(config: AugmentationConfig, side: int) -> Compose:
    """What changes the grey levels of one training radiograph at random (key ``image``)."""
    return Compose(
        [
            _ToUnit(keys="image"),
            RandAdjustContrastd(keys="image", prob=0.5, gamma=config.gamma),
            RandHistogramShiftd(keys="image", prob=0.3, num_control_points=(4, 8)),
            RandGaussianSmoothd(
                keys="image",
                prob=0.15,
                sigma_x=(0.2, config.blur_sd_pixels),
                sigma_y=(0.2, config.blur_sd_pixels),
            ),
            RandCoarseDropoutd(
                keys="image",
                prob=0.3,
                holes=1,
                max_holes=config.markers,
                spatial_size=(side // 24, side // 24),
                max_spatial_size=(side // 6, side // 6),
                fill_value=(0.0, 1.0),
            ),
            RandGaussianNoised(keys="image", prob=0.2, std=config.noise_sd),
            _RandJpegd("image", prob=0.25, quality=config.jpeg_quality),
            _ToGrey(keys="image"),
            ToTensord(keys="image", track_meta=False),
        ]
    )


def random_views(images: Tensor, config: AugmentationConfig) -> Tensor:
    """Each of ``images`` (B, 1, S, S) mirrored, turned, scaled, sheared and moved at random, black
    beyond its border; one in ten stays as it lies but for the mirror.

    For a whole batch at once and where the images lie: on a GPU the loading processes could not
    follow (MONAI's ``RandAffine`` takes half of a radiograph's time in them).
    """

    def within(limit: float) -> Tensor:
        return (torch.rand(len(images), device=images.device) * 2 - 1) * limit

    moved = torch.rand(len(images), device=images.device) < _MOVED_SHARE
    mirrored = torch.where(torch.rand(len(images), device=images.device) < 0.5, -1.0, 1.0)
    turn = within(math.radians(config.rotate_degrees)) * moved
    wide, high = (1 + within(config.scale) * moved for _ in range(2))
    lean, lift = (within(config.shear) * moved for _ in range(2))
    right, down = (within(2 * config.translate) * moved for _ in range(2))
    cos, sin = turn.cos(), turn.sin()
    across = [mirrored * wide * (cos - lift * sin), high * (lean * cos - sin), right]
    along = [mirrored * wide * (sin + lift * cos), high * (lean * sin + cos), down]
    seen_from = torch.stack([torch.stack(across, dim=1), torch.stack(along, dim=1)], dim=1)
    grid = functional.affine_grid(seen_from, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _items(
    radiographs: Radiographs, chosen: NDArray[np.bool_], taught: NDArray[np.float32] | None
) -> list[dict[str, object]]:
    return [
        {
            "image": radiographs.images[i],
            "male": np.float32(radiographs.male[i]),
            "months": np.float32(radiographs.months[i]),
            **({} if taught is None else {"taught": taught[i]}),
        }
        for i in np.flatnonzero(chosen)
    ]


class _Shuffled(Sampler[int]):
    """Places of the radiographs, epoch after epoch without an end, from any step of a run on: each
    epoch in an order of its own that depends on the seed alone."""

    def __init__(self, count: int, config: RunConfig, first_step: int) -> None:
        self._count, self._batch, self._seed = count, config.batch, config.seed
        self._first_step = first_step

    def __iter__(self) -> Iterator[int]:
        steps = self._count // self._batch
        epoch, done = divmod(self._first_step, steps)
        while True:
            seeded = torch.Generator().manual_seed(self._seed + epoch)
            order = torch.randperm(self._count, generator=seeded).tolist()
            yield from order[done * self._batch : steps * self._batch]
            epoch, done = epoch + 1, 0


def training_batches(
    radiographs: Radiographs,
    config: RunConfig,
    *,
    workers: int,
    taught: NDArray[np.float32] | None,
    first_step: int,
) -> Iterator[dict[str, Any]]:
    """Batches of augmented training radiographs from ``first_step`` of the run on, without an end.

    ``taught``: a distribution (N, 240) that belongs to each radiograph, or None. MONAI's record of
    what it did to an image, which doubles the time, is off from here on.
    """
    set_track_meta(False)
    items = _items(radiographs, ~radiographs.validation, taught)
    data = Dataset(items, random_transforms(config.augmentation, config.side))
    loader = DataLoader(
        data,
        batch_size=config.batch,
        sampler=_Shuffled(len(items), config, first_step),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
