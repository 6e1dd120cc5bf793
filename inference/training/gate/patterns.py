"""Pictures that no patient made: test patterns, gradients, text, noise and empty fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Picture = NDArray[np.float32]
"""Shape (S, S), 0..1."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def texture(side: int, rng: np.random.Generator) -> Picture:
    """Noise whose power falls with frequency, from clouds to snow."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    grey = np.fft.irfft2(spectrum / frequency ** rng.uniform(0, 2.2), s=(side, side))
    return np.asarray((grey - grey.min()) / (grey.max() - grey.min()), dtype=np.float32)


def gradient(side: int, rng: np.random.Generator) -> Picture:
    """A ramp or a vignette with a little noise."""
    y, x = np.mgrid[:side, :side] / side - rng.uniform(0, 1, (2, 1, 1))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    grey = ramp if rng.random() < 0.5 else -np.hypot(x, y * rng.uniform(0.5, 2))
    grey = (grey - grey.min()) / (grey.max() - grey.min()) + rng.normal(0, 0.01, grey.shape)
    return np.asarray(np.clip(grey, 0, 1), dtype=np.float32)


def test_pattern(side: int, rng: np.random.Generator) -> Picture:
    """Bars, checks or rings."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle, count = rng.uniform(0, np.pi), rng.uniform(2, 20)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    waves = (
        np.sin(2 * np.pi * count * u),
        np.sin(2 * np.pi * count * u) * np.sin(2 * np.pi * count * v),
        np.sin(2 * np.pi * count * np.hypot(u, v * rng.uniform(0.5, 1.5))),
    )
    grey = 0.5 + 0.5 * waves[rng.integers(3)]
    return np.asarray(grey > 0.5 if rng.random() < 0.6 else grey, dtype=np.float32)


def shapes(side: int, rng: np.random.Generator) -> Picture:
    """Boxes, ellipses and lines on a plain field."""
    image = Image.new("F", (side, side), float(rng.uniform(0, 0.3)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 12))):
        x, y = rng.uniform(-0.1, 1.1, (2, 2)) * side
        box = (min(x), min(y), max(x) + 1, max(y) + 1)
        level, way = float(rng.uniform(0, 1)), rng.integers(4)
        if way == 0:
            draw.rectangle(box, fill=level)
        elif way == 1:
            draw.ellipse(box, fill=level)
        elif way == 2:
            draw.ellipse(box, outline=level, width=int(rng.integers(1, 6)))
        else:
            draw.line((x[0], y[0], x[1], y[1]), fill=level, width=int(rng.integers(1, 9)))
    return np.asarray(ndimage.gaussian_filter(np.asarray(image), rng.uniform(0, 1.5)))


def text_page(side: int, rng: np.random.Generator) -> Picture:
    """Lines of letters, such as a scanned page or a dose report."""
    image = Image.new("F", (side, side), 0.05)
    draw = ImageDraw.Draw(image)
    size = int(rng.integers(7, 24))
    font = ImageFont.load_default(size)
    for y in range(int(rng.integers(0, 20)), side, round(size * rng.uniform(1.1, 2))):
        letters = "".join(rng.choice(list(_LETTERS + "    "), int(rng.integers(2, 30))))
        draw.text((float(rng.uniform(0, 30)), y), letters, fill=0.9, font=font)
    return np.asarray(image)


def empty_field(side: int, rng: np.random.Generator) -> Picture:
    """An exposure without a patient: a faint field, perhaps with a side marker."""
    grey = 0.3 + 0.1 * gradient(side, rng) + rng.normal(0, rng.uniform(0.002, 0.05), (side, side))
    image = Image.fromarray(grey.astype(np.float32))
    if rng.random() < 0.7:
        at = tuple(rng.uniform(0, 0.85, 2) * side)
        font = ImageFont.load_default(int(rng.integers(10, 32)))
        ImageDraw.Draw(image).text(at, str(rng.choice(["L", "R"])), fill=1.0, font=font)
    return np.asarray(image)


PATTERNS: dict[str, Callable[[int, np.random.Generator], Picture]] = {
    "texture": texture,
    "gradient": gradient,
    "test_pattern": test_pattern,
    "shapes": shapes,
    "text_page": text_page,
    "empty_field": empty_field,
}
"""What each group shows."""
