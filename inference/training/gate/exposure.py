"""Random exposure, processing and storage of a view, and the network's grey levels."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from inference.gate import to_gate_input

Picture = NDArray[np.float32]
"""Shape (S, S), about 0..1."""


def exposed(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One view as the network sees it, uint8 (S, S)."""
    grey = _tone(picture, rng)
    if rng.random() < 0.35:
        _mark(grey, rng)
    grey = _softened(grey, rng)
    if rng.random() < 0.35:
        sd = rng.uniform(0.005, 0.08) * _range(grey)
        grey = grey + np.float32(sd) * rng.standard_normal(grey.shape, dtype=np.float32)
    if rng.random() < 0.3:
        grey = _stored(grey, int(rng.integers(15, 90)))
    return to_gate_input(grey, len(grey))


def _tone(picture: Picture, rng: np.random.Generator) -> Picture:
    """Gamma, uneven illumination and clipped ends."""
    grey = np.clip(picture, 0, None) ** np.float32(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.3:
        y, x = np.mgrid[: len(grey), : len(grey)].astype(np.float32) / len(grey) - 0.5
        across, along = rng.uniform(-0.25, 0.25, 2).astype(np.float32) * _range(grey)
        grey = grey + across * x + along * y
    if rng.random() < 0.3:
        low, high = np.percentile(grey, (rng.uniform(0, 6), rng.uniform(94, 100)))
        grey = np.clip(grey, low, high)
    return np.asarray(grey, dtype=np.float32)


def _softened(grey: Picture, rng: np.random.Generator) -> Picture:
    """Half of the views as sharp as an image of 40 to 100 pixels, or blurred."""
    way = rng.random()
    if way < 0.35:
        small = int(rng.integers(40, 100))
        image = Image.fromarray(grey).resize((small, small), Image.Resampling.BILINEAR)
        return np.asarray(image.resize(grey.shape[::-1], Image.Resampling.BILINEAR))
    if way < 0.55:
        return np.asarray(ndimage.gaussian_filter(grey, rng.uniform(0.3, 1.6)))
    return grey


def _range(grey: Picture) -> np.float32:
    low, high = np.percentile(grey, (2, 98))
    return np.float32(high - low)


def _mark(grey: Picture, rng: np.random.Generator) -> None:
    """Burn side letters and boxes into the picture, mostly near its borders."""
    image = Image.fromarray(grey)
    draw = ImageDraw.Draw(image)
    side = len(grey)
    levels = (float(grey.min()), float(grey.max()))
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.integers(side // 16, side // 6))
        at = rng.uniform(0, side - size, 2)
        at[rng.integers(2)] = rng.choice([rng.uniform(0, 0.08), rng.uniform(0.82, 0.94)]) * side
        level = levels[int(rng.random() < 0.7)]
        if rng.random() < 0.7:
            letters = "".join(rng.choice(list("LRABCMS12"), int(rng.integers(1, 4))))
            draw.text(tuple(at), letters, fill=level, font=ImageFont.load_default(size))
        else:
            box = (*at, *(at + size * rng.uniform(0.4, 1.3, 2)))
            draw.rectangle(box, fill=level)
    grey[:] = np.asarray(image)


def _stored(grey: Picture, quality: int) -> Picture:
    """After JPEG compression."""
    low, high = float(grey.min()), float(grey.max())
    levels = np.rint((grey - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(levels).save(coded, "JPEG", quality=quality)
    with Image.open(coded) as image:
        decoded = np.asarray(image, dtype=np.float32) / 255
    return np.asarray(decoded * (high - low) + low, dtype=np.float32)
