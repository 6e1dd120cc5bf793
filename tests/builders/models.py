"""A small model for tests: an untrained network whose answers differ from image to image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import INFERENCE, ONNX, WEIGHTS, Bundle
from inference.network import BoneAgeNet
from inference.prediction import ModelIdentity
from inference.training.export import write_models

SIDE = 64
_CALIBRATION = {"sd_scale": 1.0, "sd_floor_months": 1.0}


def small_bundle(folder: Path, metadata: Mapping[str, Any] | None = None) -> Bundle:
    """Weights, ONNX export and configuration of an untrained network for 64-pixel images."""
    for name in (INFERENCE, WEIGHTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_models(folder, _network(), _CALIBRATION, SIDE)
    configuration = {
        "network_def": {"_target_": "inference.network.BoneAgeNet"},
        "estimator": {
            "_target_": "inference.network.BoneAgeEstimator",
            "network": "@network_def",
            **_CALIBRATION,
        },
    }
    (folder / INFERENCE).write_text(json.dumps(configuration), encoding="utf-8")
    sha256 = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (INFERENCE, WEIGHTS, ONNX)
    }
    return Bundle(
        folder=folder,
        identity=ModelIdentity(name="small", version="1.0.0", sha256=sha256[WEIGHTS]),
        side=SIDE,
        indeterminate_above_months=100.0,
        metadata=metadata or {},
        sha256=sha256,
    )


def noise_images(count: int, seed: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Coarse noise (count, 1, 64, 64), and a sex for each (count, 1)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 1, 8, 8)).astype(np.uint8)
    male = (np.arange(count) % 2)[:, None].astype(np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3), male


def _network() -> BoneAgeNet:
    torch.manual_seed(3)
    network = BoneAgeNet(drop_path=0.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    images, male = noise_images(16, seed=2)
    with torch.no_grad():
        network.train()(torch.from_numpy(images), torch.from_numpy(male))
        for parameter in list(network.head.parameters())[-2:]:
            parameter.mul_(40)  # narrow distributions, so that means differ
    return network.eval()
