"""Figures of a trained network on the held-back split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.network import BoneAgeNet, mirrored_moments

_BATCH = 64
_BOOTSTRAPS = 2000
_BANDS_MONTHS = ((0, 60), (60, 96), (96, 132), (132, 168), (168, 229))


def predict_array(
    network: BoneAgeNet, images: NDArray[np.uint8], male: NDArray[np.float32], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and SD in months, averaged over the image and its mirror. ``images`` (N, S, S) uint8,
    ``male`` (N,)."""
    network.eval()
    means, deviations = [], []
    with torch.inference_mode():
        for begin in range(0, len(images), _BATCH):
            image = torch.from_numpy(images[begin : begin + _BATCH])[:, None].to(device)
            sex = torch.from_numpy(male[begin : begin + _BATCH])[:, None].to(device)
            mean, deviation = mirrored_moments(network, image, sex)
            means.append(mean.cpu().numpy())
            deviations.append(deviation.cpu().numpy())
    return np.concatenate(means), np.concatenate(deviations)


def figures(
    predicted: NDArray[np.float32],
    labelled: NDArray[np.float32],
    male: NDArray[np.float32],
    seed: int,
) -> dict[str, Any]:
    """MAE with a 95 % bootstrap interval, RMSE, bias and shares within 12 and 24 months; by sex and
    by age band."""
    rng = np.random.default_rng(seed)
    result = _figures(predicted - labelled, rng)
    result["by_sex"] = {
        name: _figures((predicted - labelled)[male == value], rng)
        for name, value in (("F", 0.0), ("M", 1.0))
    }
    result["by_age_band_months"] = {}
    for low, high in _BANDS_MONTHS:
        inside = (labelled >= low) & (labelled < high)
        if inside.any():
            result["by_age_band_months"][f"{low}-{high - 1}"] = _figures(
                (predicted - labelled)[inside], rng
            )
    return result


def _figures(error: NDArray[np.float32], rng: np.random.Generator) -> dict[str, Any]:
    samples = np.abs(error)[rng.integers(0, len(error), (_BOOTSTRAPS, len(error)))].mean(axis=1)
    interval = np.percentile(samples, (2.5, 97.5))
    return {
        "images": len(error),
        "mae_months": round(float(np.abs(error).mean()), 3),
        "mae_months_interval_95": [round(float(value), 2) for value in interval],
        "rmse_months": round(float(np.sqrt((error**2).mean())), 3),
        "bias_months": round(float(error.mean()), 3),
        "within_12_months": round(float((np.abs(error) <= 12).mean()), 4),
        "within_24_months": round(float((np.abs(error) <= 24).mean()), 4),
    }
