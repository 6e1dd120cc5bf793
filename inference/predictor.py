"""DICOM files in, bone ages out: one way through decoding, checks, preprocessing and either
engine."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.bundle import Bundle, load_bundle
from inference.decode import UnreadablePixels, decode
from inference.localize import find_hand
from inference.postprocess import to_prediction
from inference.prediction import (
    EngineFailed,
    HandBox,
    NetworkOutput,
    Prediction,
    PredictionInvalid,
    Rejection,
)
from inference.preprocess import to_network_input, to_stored_size
from inference.quality import is_plausible, rejection_of_grey

Device = Literal["auto", "cpu", "cuda"]
Answer = Prediction | Rejection | PredictionInvalid | EngineFailed | OSError


class Engine(Protocol):
    """Runs the network on a batch."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where it runs."""

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """``images`` (B, 1, S, S), ``male`` (B, 1), 1 for male. Raises :class:`EngineFailed`."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """One radiograph ready for the network: uint8 (S, S)."""

    image: NDArray[np.uint8]
    male: bool
    hand_box: HandBox


class Predictor:
    """A verified model with the engine that runs it."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.device = engine.device
        self._engine = engine

    def predict(self, radiographs: Sequence[tuple[Path, bool]]) -> list[Answer]:
        """Assess DICOM files of boys (True) or girls (False); one answer each, in order.

        Decoding and checks run on the CPU one by one, the network on all at once. A
        :class:`Rejection` says why the pixels cannot be assessed; an ``OSError`` that a file could
        not be read, an ``EngineFailed`` that the network could not run, a ``PredictionInvalid``
        that it returned no bone age.
        """
        prepared = [self._prepare(path, male) for path, male in radiographs]
        answers = iter(self._assess([item for item in prepared if isinstance(item, _Prepared)]))
        return [next(answers) if isinstance(item, _Prepared) else item for item in prepared]

    def warm(self) -> None:
        """Run the network once on an empty image. Raises :class:`EngineFailed`."""
        side = self.bundle.side
        self._engine.run(np.zeros((1, 1, side, side), np.uint8), np.zeros((1, 1), np.float32))

    def _prepare(self, path: Path, male: bool) -> _Prepared | Rejection | OSError:
        try:
            grey = decode(path)
        except UnreadablePixels as error:
            return error.rejection
        except OSError as error:
            return error
        stored = to_stored_size(grey)
        rejection = rejection_of_grey(stored)
        if rejection is not None:
            return rejection
        hand = find_hand(stored, *grey.shape)
        if hand is None or not is_plausible(hand):
            return Rejection.NO_HAND_FOUND
        image = to_network_input(stored, self.bundle.side)
        return _Prepared(image=image, male=male, hand_box=hand.box)

    def _assess(self, prepared: Sequence[_Prepared]) -> list[Answer]:
        if not prepared:
            return []
        images = np.stack([item.image for item in prepared])[:, None]
        male = np.array([[item.male] for item in prepared], dtype=np.float32)
        try:
            output = self._engine.run(images, male)
        except EngineFailed as error:
            return [error] * len(prepared)
        return [self._answer(output, i, item.hand_box) for i, item in enumerate(prepared)]

    def _answer(self, output: NetworkOutput, index: int, box: HandBox) -> Answer:
        try:
            return to_prediction(output, index, hand_box=box, model=self.bundle.identity)
        except PredictionInvalid as error:
            return error


def load_predictor(folder: Path, *, device: Device = "auto") -> Predictor:
    """Verify a bundle and start its engine: torch on ``cuda``, onnxruntime on ``cpu``; ``auto``
    takes CUDA where torch has a device.

    Raises :class:`inference.bundle.BundleInvalid` and :class:`EngineFailed`.
    """
    bundle = load_bundle(folder)
    if device == "cuda" or (device == "auto" and _has_cuda()):
        return Predictor(bundle, _torch_engine(bundle))
    from inference.engines.onnx import OnnxEngine

    return Predictor(bundle, OnnxEngine(bundle))


def _torch_engine(bundle: Bundle) -> Engine:
    try:
        from inference.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise EngineFailed(
            f"inference.device = cuda needs {error.name}: "
            "pip install 'boneage-dicom-node[torch]', or set inference.device = cpu"
        ) from None
    return TorchEngine(bundle, "cuda")


def _has_cuda() -> bool:
    """Ask for NVIDIA's driver first: importing torch takes seconds and 200 MB."""
    try:
        ctypes.CDLL("libcuda.so.1")
        import torch
    except (OSError, ModuleNotFoundError):
        return False
    return torch.cuda.is_available()
