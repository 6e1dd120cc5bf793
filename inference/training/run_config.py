"""One training run's settings, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and an exponential moving average of the weights.

    The rates rise over ``warmup_steps``, stay, and fall to zero over the last ``decay_epochs``: a
    run can be given more epochs while it runs (Hu S et al., MiniCPM, 2024: warmup-stable-decay).
    ``frozen_blocks``: the stem and so many blocks after it stay as the run found them; 0: nothing.
    """

    frozen_blocks: int
    backbone_rate: float
    head_rate: float
    weight_decay: float
    warmup_steps: int
    decay_epochs: int
    ema_decay: float


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Cross entropy against Gaussian soft labels, plus a weighted L1 distance of the mean in
    months."""

    label_sd_months: float
    mean_weight: float


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Arguments of :class:`inference.network.BoneAgeNet`."""

    dropout: float
    drop_path: float
    sex_features: int
    hidden: int
    backbone: str = "lite0"


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Ranges of the random transforms; fractions are of the image side."""

    rotate_degrees: float
    scale: float
    translate: float
    shear: float
    gamma: tuple[float, float]
    noise_sd: float
    blur_sd_pixels: float
    markers: int
    jpeg_quality: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Learn from earlier networks too: the cross entropy against their averaged distribution,
    times ``weight``, adds to the loss.

    ``teachers``: the files ``taught.npz`` of their runs, which the step ``teach`` wrote.
    """

    teachers: tuple[Path, ...]
    weight: float


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that defines a run; the same file and seed repeat it.

    ``validate_epochs``: the held-back error is measured after every so many epochs and at the end.
    """

    name: str
    version: str
    seed: int
    side: int
    epochs: int
    batch: int
    validation_images: int
    validate_epochs: int
    optimizer: OptimizerConfig
    loss: LossConfig
    network: NetworkConfig
    augmentation: AugmentationConfig
    distillation: DistillationConfig | None = None


def read_run_config(path: Path) -> RunConfig:
    """Read a run's TOML file. Raises ``TypeError`` for an unknown or missing key, ``OSError`` when
    unreadable."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    augmentation = raw.pop("augmentation")
    for name in ("gamma", "jpeg_quality"):
        augmentation[name] = tuple(augmentation[name])
    distillation = raw.pop("distillation", None)
    if distillation is not None:
        distillation["teachers"] = tuple(Path(teacher) for teacher in distillation["teachers"])
    return RunConfig(
        optimizer=OptimizerConfig(**raw.pop("optimizer")),
        loss=LossConfig(**raw.pop("loss")),
        network=NetworkConfig(**raw.pop("network")),
        augmentation=AugmentationConfig(**augmentation),
        distillation=distillation and DistillationConfig(**distillation),
        **raw,
    )
