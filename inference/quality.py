"""Computed checks that refuse an image before the network sees it.

The limits lie outside nearly everything that 3,500 radiographs of the training set show: 2 were
refused, one of them with its collimation brighter than the hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.localize import Hand
from inference.prediction import Rejection

_MAX_SATURATED_SHARE = 0.5
_AREA_SHARE = (0.05, 0.75)
_MAX_BOX_FILLED = 0.92
_MIN_HEIGHT_SHARE = 0.3
_MIN_WIDTH_SHARE = 0.2
_MIN_BRIGHTNESS = 0.05


def rejection_of_grey(stored: NDArray[np.float32]) -> Rejection | None:
    """Refuse a 299 x 299 radiograph without contrast, or with most pixels at its brightest
    level."""
    low, high = float(stored.min()), float(stored.max())
    if high > low and (stored >= high - 0.01 * (high - low)).mean() > _MAX_SATURATED_SHARE:
        return Rejection.IMAGE_SATURATED
    dark, bright = np.percentile(stored, (2, 98))
    return None if bright > dark else Rejection.IMAGE_BLANK


def is_plausible(hand: Hand) -> bool:
    """Whether the region can be a hand: not too small, too large, filling its box, or darker than
    its surroundings (an inverted grey scale among others)."""
    return (
        _AREA_SHARE[0] <= hand.area_share <= _AREA_SHARE[1]
        and hand.area_share <= _MAX_BOX_FILLED * hand.height_share * hand.width_share
        and hand.height_share >= _MIN_HEIGHT_SHARE
        and hand.width_share >= _MIN_WIDTH_SHARE
        and hand.brightness >= _MIN_BRIGHTNESS
    )
