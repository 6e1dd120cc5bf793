"""Figures of a trained network on the held-back split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.network import BoneAgeNet, moments

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


def mirrored_moments(
    network: BoneAgeNet, image: torch.Tensor, male: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and SD of the averaged distribution of an image (B, 1, S, S) and its mirror."""
    logits = network(image, male), network(image.flip(3), male)
    probabilities = sum(torch.softmax(value.float(), dim=1) for value in logits) / 2
    assert isinstance(probabilities, torch.Tensor)
    return moments(probabilities.clamp_min(1e-12).log())


def figures(
    predicted: NDArray[np.float32],
    labelled: NDArray[np.float32],
    male: NDArray[np.float32],
    seed: int,
) -> dict[str, Any]:
    """MAE with a 95 % bootstrap interval, RMSE, bias and shares within 12 and 24 months; by sex and
    by age band."""
    result = _figures(predicted, labelled)
    rng = np.random.default_rng(seed)
    errors = np.abs(predicted - labelled)
    samples = errors[rng.integers(0, len(errors), (_BOOTSTRAPS, len(errors)))].mean(axis=1)
    result["mae_months_interval_95"] = [
        round(float(value), 2) for value in np.percentile(samples, (2.5, 97.5))
    ]
    result["by_sex"] = {
        name: _figures(predicted[male == value], labelled[male == value])
        for name, value in (("F", 0.0), ("M", 1.0))
    }
    result["by_age_band_months"] = {}
    for low, high in _BANDS_MONTHS:
        inside = (labelled >= low) & (labelled < high)
        if inside.any():
            result["by_age_band_months"][f"{low}-{high - 1}"] = _figures(
                predicted[inside], labelled[inside]
            )
    return result


def _figures(predicted: NDArray[np.float32], labelled: NDArray[np.float32]) -> dict[str, Any]:
    error = predicted - labelled
    return {
        "images": len(error),
        "mae_months": round(float(np.abs(error).mean()), 3),
        "rmse_months": round(float(np.sqrt((error**2).mean())), 3),
        "bias_months": round(float(error.mean()), 3),
        "within_12_months": round(float((np.abs(error) <= 12).mean()), 4),
        "within_24_months": round(float((np.abs(error) <= 24).mean()), 4),
    }
