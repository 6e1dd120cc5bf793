"""The network by onnxruntime on one CPU thread; never imports torch."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.bundle import ONNX, Bundle
from inference.engines.engine import Device
from inference.prediction import EngineFailed, NetworkOutput

OUTPUTS = ("mean_months", "sd_months", "saliency")


class OnnxEngine:
    """Runs the bundle's ONNX export. Capacity grows by more processes, not by threads.

    A batch runs image by image: on one thread that is 10 to 30 % faster than all at once
    (docs/performance.md), and a result never depends on what else was in the batch.
    """

    device: Device = "cpu"

    def __init__(self, bundle: Bundle) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.read(ONNX), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
            raise EngineFailed(f"{bundle.folder / ONNX}: {error}") from None

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1). Raises :class:`EngineFailed`."""
        try:
            singles = [
                self._session.run(OUTPUTS, {"image": image[None], "male": sex[None]})
                for image, sex in zip(images, male, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
            raise EngineFailed(f"onnxruntime stopped: {error}") from None
        mean, deviation, saliency = (np.concatenate(parts) for parts in zip(*singles, strict=True))
        return NetworkOutput(mean_months=mean, sd_months=deviation, saliency=saliency)
