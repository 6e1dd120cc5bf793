"""How well the network's features tell girls from boys: whether a check of the recorded sex would
prove useful.

The features before the head do not know the recorded sex: a linear probe on them (Alain G,
Bengio Y, 2016, arXiv:1610.01644) measures what the image shows of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.network import BoneAgeNet
from inference.training.evaluate import by_age_band, over_images
from inference.training.prepare import Radiographs

_TRAINING_IMAGES = 3000
_PENALTY = 0.01
_ITERATIONS = 200
_SURE = 0.95


def sex_check(
    network: BoneAgeNet, radiographs: Radiographs, seed: int, device: torch.device
) -> dict[str, Any]:
    """Accuracy of the probe on the held-back radiographs: of all, by age band, and where the probe
    is 95 % sure."""
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(~radiographs.validation))
    chosen = np.sort(chosen[:_TRAINING_IMAGES])
    held_back = np.flatnonzero(radiographs.validation)
    known = _features(network, radiographs, chosen, device)
    probe = _fit(known, torch.from_numpy(radiographs.male[chosen]))
    probability = probe(_features(network, radiographs, held_back, device))
    right = (probability > 0.5).numpy() == (radiographs.male[held_back] == 1.0)
    sure = (torch.maximum(probability, 1 - probability) >= _SURE).numpy()
    return {
        "training_images": len(chosen),
        "accuracy": _share(right),
        "by_age_band_months": {
            name: _share(right[inside])
            for name, inside in by_age_band(radiographs.months[held_back]).items()
        },
        "sure_share": _share(sure),
        "accuracy_where_sure": _share(right[sure]) if sure.any() else None,
    }


def _features(
    network: BoneAgeNet, radiographs: Radiographs, chosen: NDArray[np.int64], device: torch.device
) -> Tensor:
    """The feature maps' means, (len(chosen), 1280)."""

    def means(image: Tensor, sex: Tensor) -> Tensor:
        del sex
        return network.feature_maps(image).mean(dim=(2, 3))

    images, male = radiographs.images[chosen], radiographs.male[chosen]
    return over_images(means, network, images, male, device)


class _Probe:
    """Logistic regression on standardised features."""

    def __init__(self, features: Tensor) -> None:
        self.mean, self.deviation = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
        self.weight = torch.zeros(features.shape[1], requires_grad=True)
        self.bias = torch.zeros(1, requires_grad=True)

    def logits(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation @ self.weight + self.bias

    def __call__(self, features: Tensor) -> Tensor:
        """Probability of male, (N,)."""
        return torch.sigmoid(self.logits(features)).detach()


def _fit(features: Tensor, male: Tensor) -> _Probe:
    probe = _Probe(features)
    optimizer = torch.optim.LBFGS(
        [probe.weight, probe.bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(probe.logits(features), male)
        loss = fit + _PENALTY * (probe.weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return probe


def _share(values: NDArray[np.bool_]) -> float:
    return round(float(values.mean()), 4)
