"""MONAI datasets and random transforms for training."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset, set_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandomizableTransform,
    ToTensord,
)
from numpy.typing import NDArray
from PIL import Image

from inference.training.prepare import Radiographs
from inference.training.run_config import AugmentationConfig, RunConfig


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
    """The random transforms of one training radiograph (key ``image``)."""
    return Compose(
        [
            _ToUnit(keys="image"),
            RandFlipd(keys="image", prob=0.5, spatial_axis=1),
            RandAffined(
                keys="image",
                prob=0.9,
                rotate_range=math.radians(config.rotate_degrees),
                scale_range=(config.scale, config.scale),
                translate_range=(config.translate * side, config.translate * side),
                shear_range=(config.shear, config.shear),
                padding_mode="zeros",
                spatial_size=(side, side),
                cache_grid=True,
            ),
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


def training_loader(
    radiographs: Radiographs, config: RunConfig, workers: int, taught: NDArray[np.float32] | None
) -> DataLoader:
    """Shuffled batches of augmented training radiographs; ``taught``: a distribution (N, 240) that
    belongs to each, or None. MONAI's record of what it did to an image, which doubles the time, is
    off from here on."""
    set_track_meta(False)
    data = Dataset(
        _items(radiographs, ~radiographs.validation, taught),
        random_transforms(config.augmentation, config.side),
    )
    return DataLoader(
        data,
        batch_size=config.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
