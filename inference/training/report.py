"""Measure a run's network on the held-back split and write the figures down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from inference.network import BoneAgeNet
from inference.training import calibration
from inference.training.evaluate import figures, predict_array
from inference.training.plots import save_agreement
from inference.training.prepare import load_radiographs
from inference.training.run_config import RunConfig


def evaluate_checkpoint(config: RunConfig, prepared: Path, out: Path) -> dict[str, Any]:
    """Write ``evaluation.json`` and ``agreement.png`` below ``out``; return the figures.

    ``prepared``: array file of :func:`inference.training.prepare.prepare`. Raises
    ``FileNotFoundError`` without it or without ``checkpoint.pt``.
    """
    radiographs = load_radiographs(prepared)
    held_back = radiographs.validation
    months, male = radiographs.months[held_back], radiographs.male[held_back]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(config, out / "checkpoint.pt").to(device)
    mean, deviation = predict_array(network, radiographs.images[held_back], male, device)
    result = figures(mean, months, male, config.seed)
    result["calibration"] = _calibration(mean - months, deviation)
    (out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    save_agreement(mean, months, out / "agreement.png")
    return result


def load_network(config: RunConfig, checkpoint: Path) -> BoneAgeNet:
    """The averaged weights of a run, ready for inference. Raises ``FileNotFoundError``."""
    network = BoneAgeNet(**vars(config.network))
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network.load_state_dict(state["average"])
    return network.eval()


def _calibration(error: calibration.Months, deviation: calibration.Months) -> dict[str, Any]:
    fitted = calibration.fit(error, deviation)
    shares = {
        "coverage_uncalibrated": calibration.coverage(error, deviation),
        "coverage": calibration.coverage(error, fitted.apply(deviation)),
        "coverage_cross_fitted": calibration.cross_fitted_coverage(error, deviation),
    }
    named = {
        key: {
            str(level): round(float(share), 4)
            for level, share in zip(calibration.LEVELS, value, strict=True)
        }
        for key, value in shares.items()
    }
    return {**vars(fitted), **named}
