"""Scale the predicted SD so that central intervals hold the label as often as they claim, and say
above which SD no result is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Months = NDArray[np.float32]
LEVELS = (0.5, 0.8, 0.95)
INDETERMINATE_SHARE = 0.01
_SCALES = np.arange(0.5, 2.51, 0.01)
_LEAST_SD_MONTHS = 0.01
_COVERAGE_TOLERANCE = 0.002
_FLOORS_MONTHS = np.arange(0.0, 8.1, 0.5)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibrated SD = ``sd_scale`` x SD of the distribution, at least ``sd_floor_months``."""

    sd_scale: float
    sd_floor_months: float

    def apply(self, deviation: Months) -> Months:
        """Calibrated SD in months, (N,)."""
        calibrated: Months = np.maximum(
            deviation * np.float32(self.sd_scale), np.float32(self.sd_floor_months)
        )
        return calibrated


def fit(error: Months, deviation: Months) -> Calibration:
    """Among the calibrations whose coverages lie within 0.2 points of the best one's, the one with
    the greatest Gaussian likelihood. ``error`` is predicted minus labelled, both (N,) in months.

    Coverage alone cannot choose: a floor that makes all SDs alike covers as well as SDs that
    differ, and says less.
    """
    tried = [
        Calibration(sd_scale=round(float(scale), 2), sd_floor_months=float(floor))
        for floor in _FLOORS_MONTHS
        for scale in _SCALES
    ]
    calibrated = [one.apply(deviation).clip(_LEAST_SD_MONTHS) for one in tried]
    misses = np.array([np.abs(coverage(error, sd) - LEVELS).max() for sd in calibrated])
    surprise = np.array([(np.log(sd) + (error / sd) ** 2 / 2).mean() for sd in calibrated])
    surprise[misses > misses.min() + _COVERAGE_TOLERANCE] = np.inf
    return tried[int(np.argmin(surprise))]


def coverage(
    error: Months, deviation: Months, levels: Sequence[float] = LEVELS
) -> NDArray[np.float64]:
    """Share of labels inside the central interval of each level, (len(levels),)."""
    half_widths = np.array([NormalDist().inv_cdf(0.5 + level / 2) for level in levels])
    inside = np.abs(error)[None] <= half_widths[:, None] * deviation[None]
    shares: NDArray[np.float64] = inside.mean(axis=1)
    return shares


def cross_fitted_coverage(
    error: Months, deviation: Months, levels: Sequence[float] = LEVELS
) -> NDArray[np.float64]:
    """Coverage of each half of the images with the calibration fitted on the other half,
    (len(levels),)."""
    even = np.arange(len(error)) % 2 == 0
    halves = [
        coverage(error[mine], fit(error[~mine], deviation[~mine]).apply(deviation[mine]), levels)
        for mine in (even, ~even)
    ]
    mean: NDArray[np.float64] = np.mean(halves, axis=0)
    return mean


def indeterminate_above(deviation: Months) -> float:
    """The smallest whole month that at most 1 % of the calibrated SDs (N,) exceed: what lies above
    is stated as indeterminate."""
    return next(
        float(months)
        for months in range(1, ceil(float(deviation.max())) + 1)
        if (deviation > months).mean() <= INDETERMINATE_SHARE
    )
