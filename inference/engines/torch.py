"""The network by torch and MONAI, on CUDA; on CPU for comparison."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from safetensors.torch import load

from inference.bundle import INFERENCE, WEIGHTS, Bundle
from inference.network import BoneAgeEstimator
from inference.prediction import EngineFailed, NetworkOutput


class TorchEngine:
    """Builds the network that ``configs/inference.json`` describes and loads its safetensors.

    Runs in full float32 on every device: bfloat16 moved single results by about a month
    (measured on 96 radiographs), so that they would depend on the machine. The process's TF32
    setting for convolutions is switched off for the same reason.
    """

    def __init__(self, bundle: Bundle, device: Literal["cpu", "cuda"]) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineFailed("torch finds no CUDA device: install its CUDA build, or use the CPU")
        torch.backends.cudnn.allow_tf32 = False
        self.device = device
        try:
            parser = ConfigParser(json.loads(bundle.read(INFERENCE)))
            estimator: BoneAgeEstimator = parser.get_parsed_content("estimator")
            estimator.network.load_state_dict(load(bundle.read(WEIGHTS)))
            self._estimator = estimator.to(self.device).eval()
        except RuntimeError as error:
            raise EngineFailed(f"{bundle.folder}: {error}") from None

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1). Raises :class:`EngineFailed`."""
        try:
            with torch.inference_mode():
                image = torch.from_numpy(images).to(self.device)
                mean, deviation = self._estimator(image, torch.from_numpy(male).to(self.device))
                return NetworkOutput(
                    mean_months=mean.cpu().numpy(), sd_months=deviation.cpu().numpy()
                )
        except RuntimeError as error:
            raise EngineFailed(f"torch stopped: {error}") from None
