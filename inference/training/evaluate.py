"""Figures of a trained network on the held-back split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.metrics import MAEMetric, RMSEMetric
from monai.metrics.regression import RegressionMetric
from numpy.typing import NDArray
from torch import Tensor

from inference.network import BoneAgeNet, mirrored_moments

_BATCH = {"cpu": 8, "cuda": 256}  # eight images' activations stay in a CPU's cache
_BOOTSTRAPS = 2000
_BANDS_MONTHS = ((0, 60), (60, 96), (96, 132), (132, 168), (168, 229))


def predict_array(
    network: BoneAgeNet, images: NDArray[np.uint8], male: NDArray[np.float32], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and SD in months, averaged over the image and its mirror. ``images`` (N, S, S) uint8,
    ``male`` (N,)."""

    def both(image: Tensor, sex: Tensor) -> Tensor:
        return torch.stack(mirrored_moments(network, image, sex), dim=1)

    mean, deviation = over_images(both, network, images, male, device).numpy().T
    return mean.copy(), deviation.copy()


@torch.no_grad()
def over_images(
    answer: Callable[[Tensor, Tensor], Tensor],
    network: BoneAgeNet,
    images: NDArray[np.uint8],
    male: NDArray[np.float32],
    device: torch.device,
) -> Tensor:
    """What ``answer``, which runs ``network``, says of all ``images`` (N, S, S) and ``male`` (N,):
    it gets batches (B, 1, S, S) and (B, 1). On the CPU, (N, ...)."""
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = _BATCH[device.type]
    parts = []
    for begin in range(0, len(images), size):
        image = torch.from_numpy(images[begin : begin + size])[:, None].to(device)
        sex = torch.from_numpy(male[begin : begin + size])[:, None].to(device)
        parts.append(answer(image, sex).cpu())
    return torch.cat(parts)


def by_age_band(months: NDArray[np.float32]) -> dict[str, NDArray[np.bool_]]:
    """Which of the labels (N,) lie in each age band that has any; keys like ``60-95``."""
    bands = {f"{low}-{high - 1}": (months >= low) & (months < high) for low, high in _BANDS_MONTHS}
    return {name: inside for name, inside in bands.items() if inside.any()}


def figures(
    predicted: NDArray[np.float32],
    labelled: NDArray[np.float32],
    male: NDArray[np.float32],
    seed: int,
) -> dict[str, Any]:
    """MAE, RMSE and bias with 95 % bootstrap intervals, shares within 12 and 24 months; by sex and
    by age band."""
    rng = np.random.default_rng(seed)
    groups = {"F": male == 0.0, "M": male == 1.0}
    result = _figures(predicted, labelled, rng)
    result["by_sex"] = {
        name: _figures(predicted[inside], labelled[inside], rng) for name, inside in groups.items()
    }
    result["by_age_band_months"] = {
        name: _figures(predicted[inside], labelled[inside], rng)
        for name, inside in by_age_band(labelled).items()
    }
    return result


def month_metric(
    metric: RegressionMetric, predicted: NDArray[np.float32], labelled: NDArray[np.float32]
) -> float:
    """A regression metric of MONAI over all images; ``predicted`` and ``labelled`` (N,)."""
    metric(torch.from_numpy(predicted)[None], torch.from_numpy(labelled)[None])
    return float(torch.as_tensor(metric.aggregate()))


def _figures(
    predicted: NDArray[np.float32], labelled: NDArray[np.float32], rng: np.random.Generator
) -> dict[str, Any]:
    error = predicted - labelled
    samples = error[rng.integers(0, len(error), (_BOOTSTRAPS, len(error)))]
    return {
        "images": len(error),
        "mae_months": round(month_metric(MAEMetric(), predicted, labelled), 3),
        "mae_months_interval_95": _interval(np.abs(samples).mean(axis=1)),
        "rmse_months": round(month_metric(RMSEMetric(), predicted, labelled), 3),
        "rmse_months_interval_95": _interval(np.sqrt((samples**2).mean(axis=1))),
        "bias_months": round(float(error.mean()), 3),
        "bias_months_interval_95": _interval(samples.mean(axis=1)),
        "within_12_months": round(float((np.abs(error) <= 12).mean()), 4),
        "within_24_months": round(float((np.abs(error) <= 24).mean()), 4),
    }


def _interval(values: NDArray[np.float32]) -> list[float]:
    return [round(float(value), 2) for value in np.percentile(values, (2.5, 97.5))]
