"""What training makes small."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.network import MONTHS, moments
from inference.training.run_config import LossConfig


def distribution_loss(logits: Tensor, months: Tensor, config: LossConfig) -> Tensor:
    """Cross entropy against a Gaussian around the label plus the weighted L1 distance of the mean
    (months).

    ``logits`` (B, 240), ``months`` (B,). Returns a scalar.
    """
    bins = torch.arange(MONTHS, device=logits.device, dtype=torch.float32)
    target = torch.softmax(
        -((bins[None] - months[:, None]) ** 2) / (2 * config.label_sd_months**2), dim=1
    )
    entropy = -(target * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
    mean, _ = moments(logits)
    return entropy + config.mean_weight * (mean - months).abs().mean()


def distillation_loss(logits: Tensor, taught_distribution: Tensor) -> Tensor:
    """Cross entropy of ``logits`` (B, 240) against the teachers' distributions (B, 240); a
    scalar."""
    return -(taught_distribution * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
