"""Attenuation to grey levels: beam, collimator, lead marker, blur, noise and display processing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from inference.phantom.projection import Picture, turned

MAX_GREY = 4095
"""Largest value of 12 bits."""

_SHOULDER = 1.1
_MARKER_MM = (16.0, 22.0)
_PLASTIC, _LEAD = 0.10, 2.5
_LETTER_MM = (*((-3.4, -6.0), (-0.9, -6.0), (-0.9, 3.7), (3.7, 3.7), (3.7, 6.0), (-3.4, 6.0)),)


class Border(Enum):
    """What lies outside the collimated field."""

    SHUTTER = "shutter"
    """Masked in black by the modality."""
    UNEXPOSED = "unexposed"
    """Left as it is: grey, with the bright edge of the blades."""
    NONE = "none"
    """The field is larger than the detector."""


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Beam and processing of one radiograph."""

    border: Border
    field: tuple[float, float, float, float]
    """Left, top, right and bottom edge over the width and height of the image."""
    field_degrees: float
    heel: float
    """Attenuation gained from the top of the image to its bottom."""
    black: float
    white: float
    """Grey levels of no and of full attenuation."""
    contrast: float
    """Weight of the details against the large areas."""
    noise: float
    marker_places: tuple[int, ...]
    """Corners to try for the marker, in order."""
    marker_degrees: float


def add_marker(
    attenuation: Picture, depth_mm: Picture, exposure: Exposure, *, pixel_mm: float
) -> Picture:
    """Put the lead letter L on a plastic tab in the first free corner of the field, if any is."""
    left, top, right, bottom = exposure.field
    rows, columns = attenuation.shape
    half = 0.62 * np.hypot(*_MARKER_MM) / pixel_mm
    xs = (max(0.0, left) * columns + half, min(1.0, right) * columns - half)
    ys = (max(0.0, top) * rows + half, min(1.0, bottom) * rows - half)
    for place in exposure.marker_places:
        x, y = xs[place % 2], (ys[0], 0.45 * ys[0] + 0.55 * ys[1], ys[1])[place // 2]
        area = depth_mm[_span(y, half, rows), _span(x, half, columns)]
        if area.size and area.max() < -2:
            return attenuation + _marker(attenuation.shape, (x, y), exposure, pixel_mm)
    return attenuation


def _span(middle: float, half: float, size: int) -> slice:
    return slice(max(0, int(middle - half)), min(size, int(middle + half)))


def _marker(
    shape: tuple[int, ...], place: tuple[float, float], exposure: Exposure, pixel_mm: float
) -> Picture:
    image = Image.new("F", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    width, height = _MARKER_MM
    tab = [(-width / 2, -height / 2), (width / 2, -height / 2)]
    tab += [(width / 2, height / 2), (-width / 2, height / 2)]
    for outline, opacity in ((tab, _PLASTIC), (_LETTER_MM, _LEAD)):
        points = turned(np.array(outline), exposure.marker_degrees) / pixel_mm + place
        draw.polygon(points.ravel().tolist(), fill=opacity)
    return np.asarray(image)


def expose(
    attenuation: Picture,
    exposure: Exposure,
    *,
    pixel_mm: float,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Grey levels of the radiograph.

    ``attenuation``: the drawing grid; ``size``: (Rows, Columns) of the result. Returns uint16,
    0..4095, bright bones.
    """
    drawn = attenuation + np.linspace(0, exposure.heel, len(attenuation), dtype=np.float32)[:, None]
    drawn = _processed(drawn, exposure.contrast, pixel_mm)
    grey = (1 - np.exp(-np.maximum(drawn, 0) / _SHOULDER)).astype(np.float32)
    image = Image.fromarray(grey).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    seen = np.asarray(image) + _noise(size, exposure.noise, rng)
    levels = exposure.black + (exposure.white - exposure.black) * seen
    levels = _collimated(levels, exposure)
    return np.rint(np.clip(levels, 0, MAX_GREY)).astype(np.uint16)


def _processed(attenuation: Picture, contrast: float, pixel_mm: float) -> Picture:
    """Blur of focus and detector, then details raised against their surroundings."""
    sharp = ndimage.gaussian_filter(attenuation, 0.16 / pixel_mm)
    rows, columns = attenuation.shape
    small = Image.fromarray(np.minimum(sharp, _LEAD / 2)).reduce(4)
    around = ndimage.gaussian_filter(np.asarray(small), 4.0 / (4 * pixel_mm))
    large = Image.fromarray(around).resize((columns, rows), Image.Resampling.BILINEAR)
    raised = np.maximum(sharp - np.asarray(large), -0.25 * sharp)
    return np.asarray(sharp + np.float32(contrast) * raised)


def _noise(size: tuple[int, int], strength: float, rng: np.random.Generator) -> Picture:
    noise = rng.standard_normal(size, dtype=np.float32)
    return np.asarray(ndimage.uniform_filter(noise, 2) * np.float32(strength))


def _collimated(levels: Picture, exposure: Exposure) -> Picture:
    """Replace what lies outside the field."""
    if exposure.border is Border.NONE:
        return levels
    inside = _inside_field(levels.shape, exposure)
    if exposure.border is Border.SHUTTER:
        return levels * (inside > 0)
    outside = 0.45 * exposure.black + 0.16 * exposure.white + 0.12 * levels
    blade = np.float32(0.35 * exposure.white) * np.exp(-((inside / 0.006) ** 2))
    share = np.clip(0.5 + inside / 0.01, 0, 1)
    return np.asarray(share * levels + (1 - share) * outside + blade)


def _inside_field(shape: tuple[int, ...], exposure: Exposure) -> Picture:
    """Distance to the nearest edge of the field over the image's height, positive inside."""
    rows, columns = shape
    left, top, right, bottom = exposure.field
    slope = np.float32(np.tan(np.radians(exposure.field_degrees)))
    y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, columns, dtype=np.float32)[None] * np.float32(columns / rows)
    aspect = columns / rows
    u, v = x + slope * (y - 0.5), y - slope * (x - 0.5 * aspect)
    across = np.minimum(u - left * aspect, right * aspect - u)
    return np.asarray(np.minimum(across, np.minimum(v - top, bottom - v)))
