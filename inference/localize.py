"""Where the hand lies in a radiograph.

The hand is the largest region in which most pixels carry an edge; background, plain or grey, is
smooth. Collimation borders carry edges too, but they are long straight lines: the image beyond such
a line is left out (Hough transform with gradient directions; Duda RO, Hart PE, CACM 1972;15:11-15).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from inference.percentiles import percentiles
from inference.prediction import HandBox
from inference.quality import is_plausible

_SIDE = 150
_CENTRE = (_SIDE - 1) / 2
_DOWN, _RIGHT = np.mgrid[:_SIDE, :_SIDE] - _CENTRE
_WINDOW = 9
_EDGE_SHARE = 0.55
_MIN_EDGE = 12.0

_ANGLES = 60
_DISTANCE_STEP = 2.0
_DISTANCES = 121
_LINE_VOTES = 90
_LINE_FROM_CENTRE = 32.0
_LINE_MARGIN = 5.0
_MIN_FIELD = 0.1

_MIDDLE = (0.3, 0.7)
_EMPTY_TOLERANCE = 0.01

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Hand:
    """The hand's region: its box in pixels of the searched image, and its shares of that image's
    area, height and width, in 0..1."""

    box: HandBox
    area_share: float
    height_share: float
    width_share: float


def find_hand(stored: Grey) -> Hand | None:
    """Find the hand in a radiograph of :func:`inference.preprocess.to_stored_size`, or in a part
    of one, whatever its polarity; float32 (rows, columns). None when nothing stands out."""
    grey = _stretched(stored)
    down, right = ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)
    edge = np.hypot(down, right)
    region = _largest_region(edge, _exposed_field(down, right, edge))
    if region is None:
        return None
    vertical, horizontal = ndimage.find_objects(region.astype(np.uint8))[0]
    along, across = stored.shape[0] / _SIDE, stored.shape[1] / _SIDE
    return Hand(
        box=HandBox(
            left=horizontal.start * across,
            top=vertical.start * along,
            right=horizontal.stop * across,
            bottom=vertical.stop * along,
        ),
        area_share=float(region.mean()),
        height_share=(vertical.stop - vertical.start) / _SIDE,
        width_share=(horizontal.stop - horizontal.start) / _SIDE,
    )


def find_two_hands(stored: Grey) -> tuple[Hand, Hand] | None:
    """Find the two hands of an upright radiograph (float32 (299, 299)), image-left first.

    The image is split at the column near its middle that carries the fewest edges. Both boxes are
    in pixels of the whole image. None when either side shows no plausible hand.
    """
    split = _emptiest_column(stored)
    left, right = find_hand(stored[:, :split]), find_hand(stored[:, split:])
    if left is None or right is None or not (is_plausible(left) and is_plausible(right)):
        return None
    box = right.box
    moved = replace(box, left=box.left + split, right=box.right + split)
    return left, replace(right, box=moved)


def _emptiest_column(stored: Grey) -> int:
    grey = _stretched(stored)
    level = np.log1p(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)))
    edges = (level > _edge_threshold(level)).mean(axis=0)
    begin, end = (round(share * _SIDE) for share in _MIDDLE)
    middle = ndimage.uniform_filter1d(edges, _WINDOW)[begin:end]
    emptiest = np.flatnonzero(middle <= middle.min() + _EMPTY_TOLERANCE)
    column = begin + int(emptiest[np.argmin(np.abs(emptiest + begin - _CENTRE))])
    return int((column + 0.5) * stored.shape[1] / _SIDE)


def _stretched(stored: Grey) -> Grey:
    """2nd to 98th percentile to 0..255, (150, 150)."""
    low, high = percentiles(stored, 2, 98)
    scaled = np.clip((stored - low) / max(high - low, 1e-6), 0.0, 1.0) * 255.0
    image = Image.fromarray(scaled.astype(np.float32))
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32)


def _exposed_field(down: Grey, right: Grey, edge: Grey) -> Mask:
    """Pixels on the centre's side of every long straight edge; all, where too little would
    remain."""
    field = np.ones((_SIDE, _SIDE), dtype=bool)
    for angle, distance in _long_lines(down, right, edge):
        along_normal = _RIGHT * np.cos(angle) + _DOWN * np.sin(angle)
        field &= np.sign(distance) * along_normal < abs(distance) - _LINE_MARGIN
    return field if field.mean() > _MIN_FIELD else np.ones_like(field)


def _long_lines(down: Grey, right: Grey, edge: Grey) -> list[tuple[float, float]]:
    """Normal's angle (radians, 0..pi) and signed distance from the centre (pixels) of each line."""
    rows, columns = np.nonzero(_thin_edges(down, right, edge))
    angles = np.arctan2(down[rows, columns], right[rows, columns]) % np.pi
    distances = (columns - _CENTRE) * np.cos(angles) + (rows - _CENTRE) * np.sin(angles)
    votes = np.zeros((_ANGLES, _DISTANCES), dtype=np.float32)
    angle_bins = (angles / np.pi * _ANGLES).astype(int) % _ANGLES
    middle = _DISTANCES // 2
    distance_bins = np.rint(distances / _DISTANCE_STEP).astype(int) + middle
    np.add.at(votes, (angle_bins, distance_bins), 1.0)
    votes = ndimage.uniform_filter(votes, 3, mode="constant") * 9
    peaks = (votes > _LINE_VOTES) & (votes == ndimage.maximum_filter(votes, (5, 7)))
    return [
        ((angle + 0.5) / _ANGLES * np.pi, (distance - middle) * _DISTANCE_STEP)
        for angle, distance in np.argwhere(peaks)
        if abs(distance - middle) * _DISTANCE_STEP >= _LINE_FROM_CENTRE
    ]


def _thin_edges(down: Grey, right: Grey, edge: Grey) -> Mask:
    """Strong edge pixels that no neighbour across the edge exceeds."""
    across = np.maximum(np.roll(edge, 1, axis=1), np.roll(edge, -1, axis=1))
    along = np.maximum(np.roll(edge, 1, axis=0), np.roll(edge, -1, axis=0))
    neighbours = np.where(np.abs(right) >= np.abs(down), across, along)
    thin: Mask = (edge > np.percentile(edge, 70)) & (edge >= neighbours)
    return thin


def _largest_region(edge: Grey, field: Mask) -> Mask | None:
    level = np.log1p(edge)
    share = ndimage.uniform_filter(
        (level > _edge_threshold(level[field])).astype(np.float32), _WINDOW
    )
    regions, count = ndimage.label(
        ndimage.binary_opening((share > _EDGE_SHARE) & field, iterations=2)
    )
    if count == 0:
        return None
    largest: Mask = regions == np.argmax(np.bincount(regions.ravel())[1:]) + 1
    return largest


def _edge_threshold(level: Grey) -> float:
    return max(_otsu(level), float(np.log1p(_MIN_EDGE)))


def _otsu(values: Grey) -> float:
    """Threshold with the greatest variance between the two classes (Otsu N, IEEE T-SMC 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    separation = (sums[-1] * below / below[-1] - sums) ** 2 / np.maximum(below * above, 1)
    return float(centres[np.argmax(separation)])
