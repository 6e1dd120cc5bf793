"""Computed checks that refuse an image beside the gate (:mod:`inference.gate`).

The limits lie outside nearly everything that 3,500 radiographs of the training set show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.percentiles import percentiles

if TYPE_CHECKING:
    from inference.localize import Hand

_MAX_SATURATED_SHARE = 0.5
_AREA_SHARE = (0.05, 0.75)
_MAX_BOX_FILLED = 0.92
_MIN_HEIGHT_SHARE = 0.3
_MIN_WIDTH_SHARE = 0.2


def is_blank(stored: NDArray[np.float32]) -> bool:
    """Whether a 299 x 299 radiograph has no contrast between its 2nd and 98th percentile: the gate
    would see nothing."""
    dark, bright = percentiles(stored, 2, 98)
    return not bright > dark


def is_saturated(stored: NDArray[np.float32]) -> bool:
    """Whether most pixels of a 299 x 299 radiograph with bright bones are at its brightest level.

    An inverted image has a bright background: correct its polarity first.
    """
    low, high = float(stored.min()), float(stored.max())
    brightest = stored >= high - 0.01 * (high - low)
    return high > low and float(brightest.mean()) > _MAX_SATURATED_SHARE


def is_plausible(hand: Hand) -> bool:
    """Whether the region can be a hand: not too small, too large, or filling its box."""
    return (
        _AREA_SHARE[0] <= hand.area_share <= _AREA_SHARE[1]
        and hand.area_share <= _MAX_BOX_FILLED * hand.height_share * hand.width_share
        and hand.height_share >= _MIN_HEIGHT_SHARE
        and hand.width_share >= _MIN_WIDTH_SHARE
    )
