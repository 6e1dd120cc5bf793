"""A GPU whose faults a test injects: the real torch engine on the CPU. Needs the torch extra."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.bundle import Bundle
from inference.engines.engine import Device, EngineEvent
from inference.engines.fallback import FallbackEngine
from inference.engines.onnx import OnnxEngine
from inference.engines.torch import TorchEngine
from inference.prediction import EngineFailed, NetworkOutput

Exams = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Input of the network: images and sexes."""

Fault = Callable[[int], None]
"""Called with the batch's size before the network runs; raises what CUDA would."""


def works(_: int) -> None:
    """No fault."""


def out_of_memory_above(limit: int) -> Fault:
    def fault(size: int) -> None:
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return fault


def illegal_address(_: int) -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def fell_off_the_bus(_: int) -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")


def no_workspace(size: int) -> None:
    if size > 1:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def no_plan_that_fits(size: int) -> None:
    if size > 1:
        raise RuntimeError("GET was unable to find an engine to execute this computation")


class InjectedGpu:
    """The real torch engine on the CPU; ``machine.fault`` strikes inside its network."""

    device: Device = "cuda"

    def __init__(self, machine: Machine) -> None:
        if machine.missing:
            raise EngineFailed("torch finds no CUDA device")
        machine.starts += 1
        self._engine = TorchEngine(machine.bundle, "cpu", warm_batches=machine.sizes)
        network = self._engine._estimator

        def estimator(image: Tensor, male: Tensor) -> tuple[Tensor, ...]:
            machine.inputs.append(weakref.ref(image))
            machine.fault(len(image))
            machine.batches.append(len(image))
            mean, deviation, saliency = network(image, male)
            return mean * machine.factor, deviation, saliency

        self._engine._estimator = estimator  # type: ignore[assignment]
        self.run = self._engine.run


@dataclass
class Machine:
    """A computer whose GPU and clock the test controls."""

    bundle: Bundle
    fault: Fault = works
    missing: bool = False
    sizes: tuple[int, ...] = (1,)
    """Of the batches that run at the start."""
    factor: float = 1.0
    now: float = 1000.0
    starts: int = 0
    batches: list[int] = field(default_factory=list)
    """Sizes that the network ran with on the GPU."""
    inputs: list[weakref.ref[Tensor]] = field(default_factory=list)
    """Of every call of the network, on the GPU, also of those that failed."""
    events: list[EngineEvent] = field(default_factory=list)

    def engine(self) -> FallbackEngine:
        return FallbackEngine(
            lambda: InjectedGpu(self),
            lambda: OnnxEngine(self.bundle),
            on_event=self.events.append,
            monotonic=lambda: self.now,
        )


def assert_results(found: NetworkOutput, expected: NetworkOutput) -> None:
    """Every exam has its own result, in order."""
    np.testing.assert_allclose(found.mean_months, expected.mean_months, atol=0.1)
    np.testing.assert_allclose(found.sd_months, expected.sd_months, atol=0.1)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=0.1)
