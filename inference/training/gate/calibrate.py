"""From a trained network to decisions: how sure and how near a hand has to be."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from inference.gate import Kind
from inference.training.gate.config import GateConfig
from inference.training.gate.network import GateDecision, GateNet
from inference.training.gate.prepare import Pictures
from inference.training.gate.sampling import Sampler

HANDS = (Kind.HAND, Kind.TWO_HANDS)
"""What the gate lets in."""
_BATCH = 8  # on a CPU five times as fast as 128: the maps stay in its cache
_VIEWS = 2000
_RIDGE = 1e-4
_NEVER_SEEN = 10**6  # no training step has this number

Answers = NDArray[np.float32]
"""What :class:`GateDecision` says, side by side, (N, 10)."""


def answers_of(decision: GateDecision, images: NDArray[np.uint8]) -> Answers:
    """Answers for images uint8 (N, S, S)."""
    parts = []
    with torch.inference_mode():
        for begin in range(0, len(images), _BATCH):
            kind, turn, *rest = decision(torch.from_numpy(images[begin : begin + _BATCH])[:, None])
            parts.append(torch.cat([kind, turn, *(one[:, None] for one in rest)], dim=1).numpy())
    return np.concatenate(parts)


def margin(answers: Answers) -> NDArray[np.float32]:
    """How much the better of one and two hands exceeds the better other kind, (N,): not above 0
    where an image is refused."""
    return np.asarray(answers[:, :2].max(axis=1) - answers[:, 2:4].max(axis=1))


def calibrated(config: GateConfig, pictures: Pictures, network: GateNet) -> GateDecision:
    """Set the shift and the limit so that each refuses a stated share of random views of the
    calibration hands (``max_unsure`` and ``max_far``)."""
    decision = GateDecision(network).eval()
    _fit_distance(decision, config, pictures)
    views = _views(config, pictures, "calibration", Kind.HAND)
    shift = np.quantile(margin(answers_of(decision, views)), config.max_unsure)
    distances = decision.distance(_features(network, views)).numpy()
    decision.shift.fill_(round(float(shift), 3))
    decision.limit.fill_(round(float(np.quantile(distances, 1 - config.max_far)), 3))
    return decision


def _fit_distance(decision: GateDecision, config: GateConfig, pictures: Pictures) -> None:
    """Means of both kinds and their common covariance, on training views."""
    features = [
        _features(decision.network, _views(config, pictures, "train", kind)) for kind in HANDS
    ]
    means = torch.stack([part.mean(dim=0) for part in features])
    apart = torch.cat([part - mean for part, mean in zip(features, means, strict=True)])
    covariance = torch.cov(apart.double().T)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    decision.means.copy_(means)
    decision.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))


def _views(config: GateConfig, pictures: Pictures, part: str, kind: Kind) -> NDArray[np.uint8]:
    sampler = Sampler(pictures=pictures, part=part, side=config.side, shares={kind: 1.0})
    images, _ = sampler.batch(_VIEWS, (config.seed, _NEVER_SEEN))
    return images


def _features(network: GateNet, images: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        parts = [
            network.features(torch.from_numpy(images[begin : begin + _BATCH])[:, None])
            for begin in range(0, len(images), _BATCH)
        ]
    return torch.cat(parts)
