"""The engine for a device, a precision and a model."""

from __future__ import annotations

import ctypes
from typing import Literal

from inference.bundle import Bundle
from inference.engines.engine import Engine, OnEvent, Precision
from inference.engines.fallback import FallbackEngine
from inference.engines.remembering import RememberingEngine
from inference.prediction import EngineFailed

DeviceChoice = Literal["auto", "cpu", "cuda"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]

MAX_APART_MONTHS = 0.5
"""How far a precision may move a result of the model before it is refused."""


def engine_for(
    bundle: Bundle,
    *,
    device: DeviceChoice,
    precision: PrecisionChoice,
    batch_max: int,
    on_event: OnEvent,
) -> Engine:
    """Start the engine: onnxruntime on ``cpu``; torch on ``cuda``, with onnxruntime behind it for
    when the GPU is missing or fails; ``auto`` takes CUDA where torch has a device.

    ``precision`` is the GPU's: ``auto`` is fp32 (docs/adr/0012-engines-and-precision.md), and the
    CPU always runs fp32. ``batch_max``: the largest batch that will come. Raises
    :class:`EngineFailed` and :class:`inference.bundle.BundleInvalid`.
    """
    chosen = allowed_precision(bundle, precision)
    on_gpu = device == "cuda" or (device == "auto" and _has_cuda())
    engine = _gpu_engine(bundle, chosen, batch_max, on_event) if on_gpu else _cpu_engine(bundle)
    return RememberingEngine(engine, bundle.identity.sha256, on_event=on_event)


def allowed_precision(bundle: Bundle, precision: PrecisionChoice) -> Precision:
    """The precision of the GPU. Raises :class:`EngineFailed` for one in which the model's export
    did not find every result within 0.5 month of fp32."""
    wanted: Precision = "fp32" if precision == "auto" else precision
    measured = {"fp32": 0.0} | bundle.metadata.get("precision_months_apart", {})
    apart = measured.get(wanted)
    if apart is not None and apart <= MAX_APART_MONTHS:
        return wanted
    found = "was not measured" if apart is None else f"moves results by up to {apart:.2f} months"
    raise EngineFailed(
        f"inference.precision = {wanted} {found} with {bundle.identity.name} "
        f"{bundle.identity.version}; at most {MAX_APART_MONTHS} is allowed: "
        "set inference.precision = auto"
    )


def _cpu_engine(bundle: Bundle) -> Engine:
    from inference.engines.onnx import OnnxEngine

    return OnnxEngine(bundle)


def _gpu_engine(
    bundle: Bundle, precision: Precision, batch_max: int, on_event: OnEvent
) -> FallbackEngine:
    try:
        from inference.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise EngineFailed(
            f"inference.device = cuda needs {error.name}: "
            "pip install 'boneage-dicom-node[torch]', or set inference.device = cpu"
        ) from None
    return FallbackEngine(
        lambda: TorchEngine(bundle, "cuda", precision=precision, warm_batches=(1, batch_max)),
        lambda: _cpu_engine(bundle),
        on_event=on_event,
    )


def _has_cuda() -> bool:
    """Ask for NVIDIA's driver first: importing torch takes seconds and 200 MB."""
    try:
        ctypes.CDLL("libcuda.so.1")
        import torch
    except (OSError, ModuleNotFoundError):
        return False
    return torch.cuda.is_available()
