"""A plain frame around a radiograph: what a printer, a shutter or an export put there.

The frame takes pixels from the hand at the network's fixed size, and a bright one misleads the
search for the hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.02
"""Of the image's range of grey levels: what lossy compression leaves in a plain line."""
_MIN_CHANGE = 0.5
"""Share of a line that differs from the frame, among the first lines within it. A hand before a
plain background begins with a finger tip: that is no frame."""
_BLURRED_LINES = 8
"""Side of a JPEG block: so far a frame's end may be smeared."""
_SAMPLES = 16
"""Pixels of a line that show in passing where a hand begins."""
_MAX_SHARE = 0.4
"""Of the image's height or width, on one side."""


def within_frame(grey: NDArray[np.generic]) -> tuple[slice, slice]:
    """Rows and columns of ``grey`` (Rows, Columns) inside its plain frame, or inside several, one
    in the other; all, without one."""
    tolerance = _TOLERANCE * (float(grey.max()) - float(grey.min()))
    top, bottom, left, right = 0, grey.shape[0], 0, grey.shape[1]
    while True:
        inner = grey[top:bottom, left:right]
        above, below = _frame(inner, tolerance), _frame(inner[::-1], tolerance)
        across = inner[above : len(inner) - below].T
        before, after = _frame(across, tolerance), _frame(across[::-1], tolerance)
        if not (above or below or before or after):
            return slice(top, bottom), slice(left, right)
        top, bottom, left, right = top + above, bottom - below, left + before, right - after


def _frame(lines: NDArray[np.generic], tolerance: float) -> int:
    """How many of the first lines are plain and end abruptly."""
    level = float(np.median(lines[0]))
    first = lines[: int(len(lines) * _MAX_SHARE) + 1]
    sampled = _not_plain(first[:, :: max(1, first.shape[1] // _SAMPLES)], level, tolerance)
    if sampled.any():  # then no line behind that one is the first
        first = first[: int(sampled.argmax()) + 1]
    differs = _not_plain(first, level, tolerance)
    if not differs.any():
        return 0
    end = int(differs.argmax())
    inner = _differs(lines[end : end + 1 + _BLURRED_LINES], level, tolerance)
    return end if inner.mean(axis=1).max() >= _MIN_CHANGE else 0


def _not_plain(lines: NDArray[np.generic], level: float, tolerance: float) -> NDArray[np.bool_]:
    """Which lines differ from ``level`` somewhere: where their darkest or brightest pixel does."""
    darkest, brightest = lines.min(axis=1), lines.max(axis=1)
    return _differs(darkest, level, tolerance) | _differs(brightest, level, tolerance)


def _differs(grey: NDArray[np.generic], level: float, tolerance: float) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = np.abs(grey.astype(np.float32) - level) > tolerance
    return different
