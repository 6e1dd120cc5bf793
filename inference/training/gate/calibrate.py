"""From a trained network to decisions: how sure a hand has to be."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from inference.gate import Kind
from inference.training.gate.config import GateConfig
from inference.training.gate.network import GateDecision, GateNet
from inference.training.gate.prepare import Pictures
from inference.training.gate.sampling import Sampler

_BATCH = 8  # on a CPU five times as fast as 128: the maps stay in its cache
_VIEWS = 2000
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
    """Choose the greatest shift that refuses at most ``max_refused`` of random views of the
    calibration hands; not below 0, so that nothing comes in that the network alone refuses."""
    sampler = Sampler(
        pictures=pictures, part="calibration", side=config.side, shares={Kind.HAND: 1.0}
    )
    images, _ = sampler.batch(_VIEWS, (config.seed, _NEVER_SEEN))
    margins = margin(answers_of(GateDecision(network, 0.0).eval(), images))
    shift = max(0.0, float(np.quantile(margins, config.max_refused)))
    return GateDecision(network, round(shift, 3)).eval()
