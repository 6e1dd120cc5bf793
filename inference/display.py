"""Grey levels for people: a radiograph as a monitor would show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.decode import Decode, decode

_LOW_PERCENTILE, _HIGH_PERCENTILE = 0.5, 99.5


def display_pixels(path: Path, decode: Decode = decode) -> NDArray[np.uint8]:
    """The image that ``decode`` makes of a file, 0.5th to 99.5th percentile (of every fourth row
    and column) stretched to 0..255; shape (Rows, Columns).

    Raises as :func:`inference.decode.decode`.
    """
    grey = decode(path)
    low, high = np.percentile(grey[::4, ::4], (_LOW_PERCENTILE, _HIGH_PERCENTILE))
    spread = max(float(high - low), 1e-6)
    shown: NDArray[np.uint8] = np.rint(np.clip((grey - low) / spread, 0, 1) * 255).astype(np.uint8)
    return shown
