"""Where and how large a picture lies on a canvas, and what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.float32]
"""Shape (rows, columns), 0..1."""
Box = NDArray[np.float32]
"""Left, top, right and bottom over the width and height of the picture."""

WHOLE: Box = np.array([0, 0, 1, 1], dtype=np.float32)

_TURN_DEGREES = 25.0
_SIZE = (0.42, 1.0)
_AS_IT_IS = 0.2


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture, upright with bright bones, and the box of its hand (or of the whole picture)."""

    picture: Picture
    box: Box


def placed(
    source: Source, size: tuple[int, int], rng: np.random.Generator, *, narrow: bool = False
) -> Picture:
    """The picture shrunk, stretched, turned a little and laid somewhere on a canvas (rows,
    columns), so that the box stays inside it; one time in five as it is. ``narrow``: fill the
    canvas' width."""
    rows, columns = size
    tight = rng.random() < (0.5 if narrow else 0.3)
    picture, box = _cropped(source, rng) if tight else (source.picture, source.box)
    if rng.random() < _AS_IT_IS:
        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.array(image.resize((columns, rows), Image.Resampling.BILINEAR))
    scale = 1.0 if rng.random() < 0.35 else rng.uniform(0.8 if narrow else _SIZE[0], _SIZE[1])
    aspect = np.exp(rng.uniform(-0.15, 0.15))
    width = max(8, round(columns * min(1.05, scale * aspect)))
    height = max(8, round(rows * min(1.05, scale / aspect)))
    small = Image.fromarray(np.ascontiguousarray(picture)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    degrees = rng.uniform(-_TURN_DEGREES, _TURN_DEGREES) if rng.random() < 0.7 else 0.0
    fill = fill_of(np.asarray(small), rng)
    laid = _laid(
        small, box, (rows, columns), np.radians(degrees * (0.4 if narrow else 1)), fill, rng
    )
    return framed(laid, rng) if not narrow and rng.random() < 0.15 else laid


def _laid(
    small: Image.Image,
    box: Box,
    size: tuple[int, int],
    angle: float,
    fill: float,
    rng: np.random.Generator,
) -> Picture:
    """Turn around the box's middle and move so that the turned box lies inside, where it can."""
    rows, columns = size
    left, top, right, bottom = box * (small.width, small.height, small.width, small.height)
    half = np.array([right - left, bottom - top]) / 2
    middle = np.array([left, top]) + half
    cos, sin = np.cos(angle), np.sin(angle)
    reach = np.array([abs(cos) * half[0] + abs(sin) * half[1],
                      abs(sin) * half[0] + abs(cos) * half[1]])  # fmt: skip
    reach *= 0.95
    shrink = max(1.0, float((2 * reach / (columns, rows)).max()))
    reach /= shrink
    room = np.maximum(np.array([columns, rows]) - 2 * reach, 0)
    at = reach + rng.uniform(0, 1, 2) * room
    cos, sin = cos * shrink, sin * shrink
    matrix = (
        cos, sin, middle[0] - cos * at[0] - sin * at[1],
        -sin, cos, middle[1] + sin * at[0] - cos * at[1],
    )  # fmt: skip
    laid = small.transform(
        (columns, rows),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    return np.asarray(laid)


def _cropped(source: Source, rng: np.random.Generator) -> tuple[Picture, Box]:
    """The box with a margin of 0 to 12 % alone."""
    picture, (left, top, right, bottom) = source.picture, source.box
    rows, columns = picture.shape
    margin = rng.uniform(0, 0.12, 4) * np.repeat([right - left, bottom - top], 2)[[0, 2, 1, 3]]
    x0, y0 = max(0, int((left - margin[0]) * columns)), max(0, int((top - margin[1]) * rows))
    x1, y1 = ceil((right + margin[2]) * columns), ceil((bottom + margin[3]) * rows)
    return picture[y0:y1, x0:x1], WHOLE


def fill_of(picture: Picture, rng: np.random.Generator) -> float:
    """What lies around the picture: its own edge, black, white or grey."""
    way = rng.random()
    if way < 0.5:
        return float(np.median(np.concatenate([picture[:2].ravel(), picture[:, :2].ravel()])))
    return 0.0 if way < 0.75 else 1.0 if way < 0.85 else float(rng.uniform(0, 1))


def framed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Collimator blades: straight edges near the borders, plain beyond, perhaps a bright line."""
    blocked = picture.copy()
    level = np.float32(rng.choice([0.0, 1.0, rng.uniform(0, 1)], p=[0.5, 0.2, 0.3]))
    line = np.float32(rng.uniform(0, 1))
    width = int(rng.integers(0, 3))
    for edge in range(4):
        if rng.random() < 0.6:
            turned = np.rot90(blocked, edge)  # a view: writing changes ``blocked``
            inset = int(rng.uniform(0.01, 0.08) * len(turned))
            turned[:inset] = level
            turned[inset : inset + width] = line
    return blocked
