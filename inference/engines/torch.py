"""The network by torch and MONAI, on CUDA; on CPU for comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from inference.bundle import INFERENCE, WEIGHTS, Bundle
from inference.engines.engine import Device, OutOfMemory, Precision
from inference.network import BoneAgeEstimator
from inference.prediction import EngineFailed, NetworkOutput

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Builds the network that ``configs/inference.json`` describes, loads its safetensors and runs
    batches of the sizes ``warm_batches`` once. A smaller batch is filled up to the next of them
    that fitted the memory: cuDNN plans the convolutions anew for each size that it meets, which
    takes seconds, and a GPU needs hardly longer for eight images than for two (docs/adr/0032).

    ``precision`` is that of the convolutions, by torch's autocast; the head, the distribution and
    the saliency are computed in float32. TF32 is off and cuDNN takes the same algorithms each time,
    so that a result does not depend on the machine's settings. Raises :class:`EngineFailed` when
    the device is missing or does not answer.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        *,
        precision: Precision = "fp32",
        warm_batches: Sequence[int] = (1,),
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineFailed("torch finds no CUDA device: install its CUDA build, or use the CPU")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.device = device
        try:
            self._estimator = _estimator(bundle, device, precision)
        except RuntimeError as error:
            raise EngineFailed(f"{bundle.folder}: {error}") from None
        self._sizes = list[int]()
        for size in sorted(warm_batches):
            self._warm(size, bundle.side)

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1), in one call of the network. Raises
        :class:`OutOfMemory` and :class:`EngineFailed`."""
        count = len(images)
        size = next((size for size in self._sizes if size >= count), count)
        try:
            with torch.inference_mode():
                mean, deviation, saliency = self._estimator(
                    torch.from_numpy(_filled(images, size)).to(self.device),
                    torch.from_numpy(_filled(male, size)).to(self.device),
                )
                return NetworkOutput(
                    mean_months=mean[:count].cpu().numpy(),
                    sd_months=deviation[:count].cpu().numpy(),
                    saliency=saliency[:count].cpu().numpy(),
                )
        except RuntimeError as error:
            failure = OutOfMemory if _is_out_of_memory(error) else EngineFailed
            raise failure(f"torch stopped: {error}") from None

    def _warm(self, size: int, side: int) -> None:
        """Lets torch choose algorithms and take memory before the first exam."""
        try:
            self.run(np.zeros((size, 1, side, side), np.uint8), np.zeros((size, 1), np.float32))
        except OutOfMemory:
            if size == 1:
                raise
        else:
            self._sizes.append(size)


def _filled(values: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(values)
    if missing == 0:
        return values
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


def _estimator(bundle: Bundle, device: Device, precision: Precision) -> BoneAgeEstimator:
    parser = ConfigParser(json.loads(bundle.read(INFERENCE)))
    estimator: BoneAgeEstimator = parser.get_parsed_content("estimator")
    estimator.network.load_state_dict(load(bundle.read(WEIGHTS)))
    if precision != "fp32":
        _reduce_trunk(estimator, device, _DTYPES[precision])
    estimator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    return estimator.to(device).eval()


def _reduce_trunk(estimator: BoneAgeEstimator, device: Device, dtype: torch.dtype) -> None:
    trunk = estimator.network.feature_maps

    def feature_maps(image: Tensor) -> Tensor:
        with torch.autocast(device, dtype):
            maps = trunk(image)
        return maps.float()

    estimator.network.feature_maps = feature_maps  # type: ignore[method-assign]  # this engine's only


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's libraries say so in their texts only (CUDNN_STATUS_ALLOC_FAILED); where the workspace
    of no engine fits, torch says that it found none."""
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "ALLOC_FAILED" in text
        or "unable to find an engine" in text
    )
