"""From grey levels to the network's input: one function for training and both engines.

The released networks learn from the RSNA 2017 radiographs, which are stored as whole images
squeezed to 299 x 299. A full-size radiograph therefore takes the same two steps here: bilinear
(anti-aliased) resize of the whole image to 299 x 299, then the hand alone to the side of the
network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.decode import decode
from inference.frame import within_frame
from inference.percentiles import percentiles
from inference.prediction import HandBox

STORED_SIDE = 299
"""Side in pixels of the stored training radiographs."""

_LOW_PERCENTILE, _HIGH_PERCENTILE = 2.0, 99.0
_MARGIN = 0.06


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A radiograph without its plain frame, as the networks look at it.

    ``stored``: float32 (299, 299) of :func:`to_stored_size`. ``field``: the part of the source
    image that became those pixels.
    """

    stored: NDArray[np.float32]
    field: HandBox


Read = Callable[[Path], Radiograph]


def read(path: Path) -> Radiograph:
    """A DICOM file as a radiograph. Raises as :func:`inference.decode.decode`."""
    return to_radiograph(decode(path))


def to_radiograph(grey: NDArray[np.generic]) -> Radiograph:
    """Grey levels (Rows, Columns), any real dtype, either polarity, as a radiograph."""
    rows, columns = within_frame(grey)
    return Radiograph(
        stored=to_stored_size(grey[rows, columns]),
        field=HandBox(left=columns.start, top=rows.start, right=columns.stop, bottom=rows.stop),
    )


def to_stored_size(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Resize a whole radiograph to 299 x 299 (anti-aliased bilinear, aspect ratio not kept).

    ``pixels``: shape (Rows, Columns), any real dtype, bright bones. Returns float32 in the same
    grey levels.
    Raises ``ValueError`` unless the array has two dimensions.
    """
    if pixels.ndim != 2:
        raise ValueError(
            f"expected a single-channel image of shape (Rows, Columns), got {pixels.shape}"
        )
    if pixels.shape == (STORED_SIDE, STORED_SIDE):
        return pixels.astype(np.float32, copy=False)
    return _resize(pixels.astype(np.float32, copy=False), STORED_SIDE)


def to_network_input(stored: NDArray[np.float32], hand: HandBox, side: int) -> NDArray[np.uint8]:
    """The hand to the network's grey levels.

    ``stored``: float32 (299, 299) of :func:`to_stored_size`; ``hand``: the hand's box in it. The
    box grows by 6 % of its width and height on each side, as far as the image goes. Returns uint8
    (side, side): the 2nd to 99th percentile of that part stretched to 0..255. A part without
    contrast becomes all zero.
    """
    box = widened(hand)
    part = stored[int(box.top) : ceil(box.bottom), int(box.left) : ceil(box.right)]
    low, high = percentiles(part, _LOW_PERCENTILE, _HIGH_PERCENTILE)
    if not high > low:
        return np.zeros((side, side), dtype=np.uint8)
    scaled = np.clip((stored - low) / (high - low), 0.0, 1.0) * 255.0
    return np.rint(_resize(scaled.astype(np.float32), side, box)).astype(np.uint8)


def cut_out(stored: NDArray[np.float32], hand: HandBox) -> NDArray[np.float32]:
    """The widened box of one hand as a radiograph of its own, float32 (299, 299)."""
    return _resize(stored, STORED_SIDE, widened(hand))


def widened(hand: HandBox) -> HandBox:
    """The part of the 299 x 299 image that the network sees."""
    across, down = (hand.right - hand.left) * _MARGIN, (hand.bottom - hand.top) * _MARGIN
    return HandBox(
        left=max(hand.left - across, 0.0),
        top=max(hand.top - down, 0.0),
        right=min(hand.right + across, float(STORED_SIDE)),
        bottom=min(hand.bottom + down, float(STORED_SIDE)),
    )


def _resize(
    pixels: NDArray[np.float32], side: int, box: HandBox | None = None
) -> NDArray[np.float32]:
    edges = None if box is None else (box.left, box.top, box.right, box.bottom)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=edges)
    return np.asarray(image, dtype=np.float32)
