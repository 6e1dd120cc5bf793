"""From grey levels to the network's input: one function for training and both engines.

The released networks learn from the RSNA 2017 radiographs, which are stored as whole images
squeezed to 299 x 299.
A full-size radiograph therefore takes the same two steps here: bilinear (anti-aliased) resize of
the whole image to
299 x 299, then to the side of the network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STORED_SIDE = 299
"""Side in pixels of the stored training radiographs."""

_LOW_PERCENTILE, _HIGH_PERCENTILE = 2.0, 98.0


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


def to_network_input(pixels: NDArray[np.generic], side: int) -> NDArray[np.uint8]:
    """Radiograph to the network's grey levels.

    ``pixels``: shape (Rows, Columns), any real dtype, bright bones. Returns uint8, shape (side,
    side): the 2nd to
    98th percentile of the 299 x 299 image stretched to 0..255. An image without contrast becomes
    all zero.
    """
    stored = to_stored_size(pixels)
    low, high = np.percentile(stored, (_LOW_PERCENTILE, _HIGH_PERCENTILE))
    if not high > low:
        return np.zeros((side, side), dtype=np.uint8)
    scaled = np.clip((stored - low) / (high - low), 0.0, 1.0) * 255.0
    return np.rint(_resize(scaled.astype(np.float32), side)).astype(np.uint8)


def _resize(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
