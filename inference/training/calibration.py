"""Scale the predicted SD so that central intervals hold the label as often as they claim."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Months = NDArray[np.float32]
LEVELS = (0.5, 0.8, 0.95)
_SCALES = np.arange(0.5, 2.51, 0.01)
_FLOORS_MONTHS = np.arange(0.0, 8.1, 0.5)
_Z = np.array([NormalDist().inv_cdf(0.5 + level / 2) for level in LEVELS])


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
    """Least squared difference of the three coverages from their levels; the smallest floor
    wins a tie. ``error`` is predicted minus labelled, both (N,) in months."""
    best, calibration = np.inf, Calibration(sd_scale=1.0, sd_floor_months=0.0)
    for floor in _FLOORS_MONTHS:
        for scale in _SCALES:
            tried = Calibration(sd_scale=round(float(scale), 2), sd_floor_months=float(floor))
            loss = float(((coverage(error, tried.apply(deviation)) - LEVELS) ** 2).sum())
            if loss < best:
                best, calibration = loss, tried
    return calibration


def coverage(error: Months, deviation: Months) -> NDArray[np.float64]:
    """Share of labels inside the central interval of each of ``LEVELS``, (3,)."""
    inside = np.abs(error)[None] <= _Z[:, None] * deviation[None]
    shares: NDArray[np.float64] = inside.mean(axis=1)
    return shares


def cross_fitted_coverage(error: Months, deviation: Months) -> NDArray[np.float64]:
    """Coverage of each half of the images with the calibration fitted on the other half, (3,)."""
    even = np.arange(len(error)) % 2 == 0
    halves = [
        coverage(error[mine], fit(error[~mine], deviation[~mine]).apply(deviation[mine]))
        for mine in (even, ~even)
    ]
    mean: NDArray[np.float64] = np.mean(halves, axis=0)
    return mean
