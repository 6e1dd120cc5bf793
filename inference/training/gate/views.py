"""Random views of pictures: how a hand, two hands, a piece of one or something else may lie."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from inference.gate import Kind, View
from inference.training.gate.placement import WHOLE, Picture, Source, fill_of, framed, placed


def hand_view(source: Source, side: int, rng: np.random.Generator) -> tuple[Picture, View]:
    """One whole hand; one time in ten beside an empty half, so that a seam is not a second hand."""
    if rng.random() < 0.1:
        filled = placed(source, (side, side // 2), rng)
        empty = np.full_like(filled, np.median(filled[:, :4]) if rng.random() < 0.7 else 0.0)
        halves = [filled, empty]
        if rng.random() < 0.5:
            halves.reverse()
        upright = np.hstack(halves)
    else:
        upright = placed(source, (side, side), rng)
    return in_some_lie(upright, Kind.HAND, rng)


def two_hands_view(
    left: Source, right: Source, side: int, rng: np.random.Generator
) -> tuple[Picture, View]:
    """Two hands side by side, squeezed to a square; mostly thumb to thumb, as in a view of the
    backs of both."""
    mirrored = (False, True) if rng.random() < 0.75 else tuple(rng.random(2) < 0.5)
    level = rng.random() < 0.7
    halves = []
    for source, mirror in zip((left, right), mirrored, strict=True):
        half = placed(source, (side, side // 2), rng, narrow=True)
        half = half[:, ::-1] if mirror else half
        halves.append(_on_black(half) if level else half)
    upright = np.hstack(halves)
    if level and rng.random() < 0.5:
        upright = upright * np.float32(0.8) + np.float32(rng.uniform(0, 0.2))
    if rng.random() < 0.3:
        upright = framed(upright, rng)
    return in_some_lie(upright, Kind.TWO_HANDS, rng)


def incomplete_view(source: Source, side: int, rng: np.random.Generator) -> tuple[Picture, View]:
    """Clearly less than a hand, or a hand that nobody could read."""
    way = rng.random()
    if way < 0.2:
        spoilt = Source(picture=_spoilt(source.picture, rng), box=source.box)
        upright = placed(spoilt, (side, side), rng)
    else:
        upright = _piece(source, side, rng, way)
    return in_some_lie(upright, Kind.INCOMPLETE, rng)


def other_view(source: Source, side: int, rng: np.random.Generator) -> tuple[Picture, View]:
    """Something else, placed as hands are."""
    upright = placed(source, (side, side), rng)
    if rng.random() < 0.12:
        upright = np.hstack([upright[:, ::2], upright[:, -1::-2]])
    return in_some_lie(upright, Kind.NOT_A_HAND, rng)


def scrambled(source: Source, rng: np.random.Generator) -> Source:
    """A hand's texture without its form: shuffled tiles or one magnified patch."""
    picture = source.picture
    side = len(picture)
    if rng.random() < 0.5:
        count = int(rng.integers(2, 6))
        size = side // count
        tiles = [
            picture[y * size : (y + 1) * size, x * size : (x + 1) * size]
            for y in range(count)
            for x in range(count)
        ]
        tiles = [np.rot90(tiles[i], int(rng.integers(4))) for i in rng.permutation(len(tiles))]
        rows = [np.hstack(tiles[y * count : (y + 1) * count]) for y in range(count)]
        return Source(picture=np.vstack(rows), box=source.box)
    left, top, right, bottom = source.box
    share = rng.uniform(0.15, 0.3)
    x = min(rng.uniform(left, max(left, right - share)), 1 - share) * side
    y = min(rng.uniform(top, max(top, bottom - share)), 1 - share) * side
    patch = Image.fromarray(picture).resize(
        (side, side), Image.Resampling.BICUBIC, box=(x, y, x + share * side, y + share * side)
    )
    return Source(picture=np.asarray(patch), box=WHOLE)


def _piece(source: Source, side: int, rng: np.random.Generator, way: float) -> Picture:
    """Finger tips, a wrist, or half a hand: alone in the image, or with the rest masked."""
    picture, (left, top, right, bottom) = source.picture, source.box
    rows, columns = picture.shape
    low, high = np.array([0.0, 0.0]), np.array([1.0, 1.0])
    if way < 0.45:
        high[1] = top + rng.uniform(0.12, 0.36) * (bottom - top)
    elif way < 0.7:
        low[1] = bottom - rng.uniform(0.15, 0.42) * (bottom - top)
    elif way < 0.85:
        high[0] = left + rng.uniform(0.2, 0.5) * (right - left)
    else:
        low[0] = right - rng.uniform(0.2, 0.5) * (right - left)
    x0, y0 = (low * (columns, rows)).astype(int)
    x1, y1 = np.ceil(high * (columns, rows)).astype(int)
    if rng.random() < 0.4:
        masked = np.full_like(picture, fill_of(picture, rng))
        masked[y0:y1, x0:x1] = picture[y0:y1, x0:x1]
        kept = Source(picture=masked, box=source.box)
        return placed(kept, (side, side), rng)
    part = picture[y0:y1, x0:x1]
    if part.shape[0] < 4 or part.shape[1] < 4:
        part = picture[: rows // 3]
    return placed(Source(picture=part, box=WHOLE), (side, side), rng)


def _spoilt(picture: Picture, rng: np.random.Generator) -> Picture:
    """Far overexposed, far underexposed, or drowned in noise."""
    way = rng.integers(3)
    if way == 0:
        background, hand = np.percentile(picture, (20, 80))
        limit = background + rng.uniform(0.05, 0.25) * (hand - background)
        return np.asarray(np.minimum(picture, limit), dtype=np.float32)
    if way == 1:
        level = np.percentile(picture, rng.uniform(97, 99.5))
        return np.asarray(np.maximum(picture, level), dtype=np.float32)
    sd = rng.uniform(1.2, 4.0) * max(float(picture.std()), 0.05)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    coarse = ndimage.gaussian_filter(noise, rng.uniform(0.6, 1.5))
    return np.asarray(picture + np.float32(sd / coarse.std()) * coarse, dtype=np.float32)


def _on_black(picture: Picture) -> Picture:
    """Its background as zero, so that no seam remains between two of them."""
    background = np.percentile(picture, 15)
    return np.asarray(np.maximum(picture - background, 0), dtype=np.float32)


def in_some_lie(upright: Picture, kind: Kind, rng: np.random.Generator) -> tuple[Picture, View]:
    """Mirror, turn and invert at random, and say what puts it right."""
    mirrored, turns, inverted = rng.random() < 0.5, int(rng.integers(4)), rng.random() < 0.5
    picture = np.rot90(upright[:, ::-1] if mirrored else upright, turns)
    view = View(
        kind=kind,
        quarter_turns=-turns % 4,
        inverted=inverted,
        thumb_right=float(not mirrored),
    )
    return np.ascontiguousarray(1 - picture if inverted else picture), view
