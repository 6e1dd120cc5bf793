"""One gate's settings, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Everything that defines a run; the same file and seed repeat it.

    ``side``: of the network's input, ``source_side``: of the pictures that views are made from, in
    pixels. ``shares``: of each kind (:class:`inference.gate.Kind`) among the training views.
    ``max_refused``: share of random views of calibration hands that the threshold may refuse.
    """

    seed: int
    side: int
    source_side: int
    calibration_images: int
    phantoms: int
    drawings: int
    steps: int
    unseen_steps: int
    batch: int
    rate: float
    weight_decay: float
    warmup_steps: int
    ema_decay: float
    max_refused: float
    shares: dict[str, float]


def read_gate_config(path: Path) -> GateConfig:
    """Read a run's TOML file. Raises ``TypeError`` for an unknown or missing key, ``OSError`` when
    unreadable."""
    return GateConfig(**tomllib.loads(path.read_text(encoding="utf-8")))
