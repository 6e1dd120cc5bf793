"""A GPU with the CPU behind it: every batch gets its result, whatever the GPU does."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference.bundle import BundleInvalid
from inference.engines.engine import Device, Engine, EngineEvent, OnEvent, OutOfMemory
from inference.prediction import EngineFailed, NetworkOutput

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0


class FallbackEngine:
    """Runs on the GPU while it answers, otherwise on the CPU.

    - Out of memory: the batch runs in halves; an image that does not fit alone runs on the CPU.
    - A result that is not finite: that batch runs on the CPU.
    - Any other failure, also at the start: the CPU takes over at once. The GPU is tried again with
      a batch at hand after 5 seconds, then after pauses that double up to 5 minutes, until one
      succeeds.

    ``start_gpu`` and ``start_cpu`` make engines and raise :class:`EngineFailed`; the CPU's is made
    when it is first needed. After some errors (an illegal address, a driver that was missing when
    the process began) CUDA stays unusable in this process: it then goes on with the CPU.
    """

    def __init__(
        self,
        start_gpu: Callable[[], Engine],
        start_cpu: Callable[[], Engine],
        *,
        on_event: OnEvent,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start_gpu = start_gpu
        self._start_cpu = start_cpu
        self._on_event = on_event
        self._monotonic = monotonic
        self._gpu: Engine | None = None
        self._cpu: Engine | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._try_at = 0.0
        try:
            self._gpu = start_gpu()
        except EngineFailed:
            self._lose_gpu()

    @property
    def device(self) -> Device:
        """Where the next batch is to run."""
        return self._gpu.device if self._gpu else "cpu"

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1). Raises :class:`EngineFailed` when the CPU fails
        as well."""
        if self._gpu is None:
            self._try_again()
        if self._gpu is None:
            return self._run_on_cpu(images, male)
        output, fits = None, True
        try:
            output = self._gpu.run(images, male)
        except OutOfMemory:
            self._on_event(EngineEvent.OUT_OF_MEMORY)
            fits = False
        except EngineFailed:
            self._lose_gpu()
        if output is None:  # the error is gone by now, and with it the GPU memory that it held
            run = self._run_on_cpu if fits else self._run_in_halves
            return run(images, male)
        self._pause_seconds = FIRST_PAUSE_SECONDS
        if not _is_finite(output):
            self._on_event(EngineEvent.OUTPUT_NOT_FINITE)
            return self._run_on_cpu(images, male)
        return output

    def _run_in_halves(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        half = len(images) // 2
        if half == 0:
            return self._run_on_cpu(images, male)
        first, second = self.run(images[:half], male[:half]), self.run(images[half:], male[half:])
        return NetworkOutput(
            mean_months=np.concatenate([first.mean_months, second.mean_months]),
            sd_months=np.concatenate([first.sd_months, second.sd_months]),
            saliency=np.concatenate([first.saliency, second.saliency]),
        )

    def _run_on_cpu(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        self._cpu = self._cpu or self._start_cpu()
        output = self._cpu.run(images, male)
        self._on_event(EngineEvent.CPU_BATCH)
        return output

    def _lose_gpu(self) -> None:
        self._gpu = None
        self._postpone()
        self._on_event(EngineEvent.DEVICE_LOST)

    def _postpone(self) -> None:
        self._try_at = self._monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def _try_again(self) -> None:
        if self._monotonic() < self._try_at:
            return
        try:
            self._gpu = self._start_gpu()
        except (EngineFailed, BundleInvalid):
            self._postpone()
        else:
            self._on_event(EngineEvent.DEVICE_RETURNED)


def _is_finite(output: NetworkOutput) -> bool:
    parts = (output.mean_months, output.sd_months, output.saliency)
    return all(bool(np.isfinite(part).all()) for part in parts)
