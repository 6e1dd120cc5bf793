"""What every engine is, and what can happen to one."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.prediction import EngineFailed, NetworkOutput

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


class Engine(Protocol):
    """Runs the network on a batch."""

    @property
    def device(self) -> Device:
        """Where it runs now."""

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1), 1 for male. Raises :class:`EngineFailed`."""


class OutOfMemory(EngineFailed):
    """The batch does not fit the device's memory; a smaller one may."""


class EngineEvent(StrEnum):
    """What an operator should be able to count; stable codes."""

    OUT_OF_MEMORY = "out_of_memory"
    """A batch did not fit the GPU's memory: it runs in halves, a single image on the CPU."""
    DEVICE_LOST = "device_lost"
    """The GPU failed or is missing: the CPU runs the network until the GPU answers again."""
    DEVICE_RETURNED = "device_returned"
    """The GPU answers and is used again."""
    OUTPUT_NOT_FINITE = "output_not_finite"
    """The GPU gave something that is no number: the batch runs on the CPU."""
    CPU_BATCH = "cpu_batch"
    """A batch ran on the CPU in the GPU's place."""
    DUPLICATE = "duplicate"
    """An image was answered by the result of an equal one."""


OnEvent = Callable[[EngineEvent], None]
