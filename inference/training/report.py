"""Measure a run's network on the held-back split and write the figures down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.network import BoneAgeNet
from inference.training import calibration
from inference.training.evaluate import figures, predict_array
from inference.training.plots import save_agreement, save_reliability
from inference.training.prepare import load_radiographs
from inference.training.run_config import RunConfig
from inference.training.sex_check import sex_check

AGREEMENT_PICTURE = "agreement.png"
RELIABILITY_PICTURE = "calibration.png"
_PLOTTED_LEVELS = tuple(float(level) for level in np.arange(5, 100, 5) / 100)


def evaluate_checkpoint(config: RunConfig, prepared: Path, out: Path) -> dict[str, Any]:
    """Write ``evaluation.json``, ``agreement.png`` and ``calibration.png`` below ``out``; return
    the figures.

    ``prepared``: array file of :func:`inference.training.prepare.prepare`. Raises
    ``FileNotFoundError`` without it or without ``checkpoint.pt``.
    """
    radiographs = load_radiographs(prepared)
    held_back = radiographs.validation
    months, male = radiographs.months[held_back], radiographs.male[held_back]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = load_checkpoint(out / "checkpoint.pt")
    network = averaged_network(config, state).to(device)
    mean, deviation = predict_array(network, radiographs.images[held_back], male, device)
    steps = int((~held_back).sum()) // config.batch
    result = {
        **figures(mean, months, male, config.seed),
        "calibration": _calibration(mean - months, deviation),
        "sex_check": sex_check(network, radiographs, config.seed, device),
        "training": {
            "images": int((~held_back).sum()),
            "epochs": round(state["step"] / steps, 1),
            "hours": round(state["seconds"] / 3600, 1),
        },
    }
    (out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    save_agreement(mean, months, out / AGREEMENT_PICTURE)
    _save_reliability(mean - months, deviation, out / RELIABILITY_PICTURE)
    return result


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`inference.training.train.train` saved. Raises ``FileNotFoundError``."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def averaged_network(config: RunConfig, state: dict[str, Any]) -> BoneAgeNet:
    """The averaged weights of a checkpoint, ready for inference."""
    network = BoneAgeNet(**vars(config.network))
    network.load_state_dict(state["average"])
    return network.eval()


def _calibration(error: calibration.Months, deviation: calibration.Months) -> dict[str, Any]:
    fitted = calibration.fit(error, deviation)
    calibrated = fitted.apply(deviation)
    shares = {
        "coverage_uncalibrated": calibration.coverage(error, deviation),
        "coverage": calibration.coverage(error, calibrated),
        "coverage_cross_fitted": calibration.cross_fitted_coverage(error, deviation),
    }
    named = {
        key: {
            str(level): round(float(share), 4)
            for level, share in zip(calibration.LEVELS, value, strict=True)
        }
        for key, value in shares.items()
    }
    return {**vars(fitted), **named, **_doubt(error, calibrated)}


def _doubt(error: calibration.Months, calibrated: calibration.Months) -> dict[str, Any]:
    """Sharpness (the spread of the SDs that are stated) and what the threshold does."""
    limit = calibration.indeterminate_above(calibrated)
    above = calibrated > limit
    low, middle, high = (round(float(v), 2) for v in np.percentile(calibrated, (5, 50, 95)))
    return {
        "sd_months": {
            "mean": round(float(calibrated.mean()), 2),
            "5%": low,
            "50%": middle,
            "95%": high,
        },
        "indeterminate_above_months": limit,
        "indeterminate_share": round(float(above.mean()), 4),
        "indeterminate_mae_months": round(float(np.abs(error[above]).mean()), 2)
        if above.any()
        else None,
        "stated_mae_months": round(float(np.abs(error[~above]).mean()), 2),
    }


def _save_reliability(
    error: calibration.Months, deviation: calibration.Months, picture: Path
) -> None:
    calibrated = calibration.fit(error, deviation).apply(deviation)
    shares = {
        "uncalibrated": calibration.coverage(error, deviation, _PLOTTED_LEVELS),
        "calibrated": calibration.coverage(error, calibrated, _PLOTTED_LEVELS),
        "cross-fitted": calibration.cross_fitted_coverage(error, deviation, _PLOTTED_LEVELS),
    }
    save_reliability(_PLOTTED_LEVELS, shares, picture)
