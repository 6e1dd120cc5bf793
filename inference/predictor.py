"""DICOM files in, bone ages out: one way through decoding, checks, preprocessing and either
engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from inference.bundle import GATE_ONNX, Bundle, load_bundle
from inference.canonical import CanonicalHand, find_canonical_hand
from inference.decode import UnreadablePixels
from inference.decoding_process import DecodingStopped
from inference.engines.choice import DeviceChoice, PrecisionChoice, engine_for
from inference.engines.engine import Device, Engine, EngineEvent, OnEvent
from inference.gate import Gate
from inference.postprocess import to_prediction
from inference.prediction import (
    EngineFailed,
    NetworkOutput,
    Prediction,
    PredictionInvalid,
    Rejection,
)
from inference.preprocess import STORED_SIDE, Read, read

Answer = Prediction | Rejection | PredictionInvalid | EngineFailed | DecodingStopped | OSError


class Predictor:
    """A verified model: its gate and the engine that runs its network. ``read``: what makes a
    radiograph of a file."""

    def __init__(self, bundle: Bundle, gate: Gate, engine: Engine, *, read: Read = read) -> None:
        self.bundle = bundle
        self._gate = gate
        self._engine = engine
        self._read = read

    @property
    def device(self) -> Device:
        """Where the network runs now."""
        return self._engine.device

    def predict(self, radiographs: Iterable[tuple[Path, bool]]) -> list[Answer]:
        """Assess DICOM files of boys (True) or girls (False); one answer each, in order.

        Reading and checks run on the CPU one by one, each before the next file is asked for, then
        the network on all at once. A :class:`Rejection` says why no bone age can be stated; an
        ``OSError`` that a file could not be read, a :class:`DecodingStopped` that it was not
        decoded within limits, an ``EngineFailed`` that a network could not run, a
        ``PredictionInvalid`` that it returned no bone age.
        """
        prepared = [(self._prepare(path), male) for path, male in radiographs]
        hands = [(hand, male) for hand, male in prepared if isinstance(hand, CanonicalHand)]
        answers = iter(self._assess(hands))
        return [next(answers) if isinstance(item, CanonicalHand) else item for item, _ in prepared]

    def warm(self) -> None:
        """Run both networks once on an empty image. Raises :class:`EngineFailed`."""
        side = self.bundle.side
        self._gate.look(np.zeros((STORED_SIDE, STORED_SIDE), np.float32))
        self._engine.run(np.zeros((1, 1, side, side), np.uint8), np.zeros((1, 1), np.float32))

    def _prepare(
        self, path: Path
    ) -> CanonicalHand | Rejection | OSError | EngineFailed | DecodingStopped:
        try:
            return find_canonical_hand(self._read(path), self._gate, self.bundle.side)
        except UnreadablePixels as error:
            return error.rejection
        except (OSError, EngineFailed, DecodingStopped) as error:
            return error

    def _assess(self, hands: Sequence[tuple[CanonicalHand, bool]]) -> list[Answer]:
        if not hands:
            return []
        images = np.stack([hand.image for hand, _ in hands])[:, None]
        male = np.array([[male] for _, male in hands], dtype=np.float32)
        try:
            output = self._engine.run(images, male)
        except EngineFailed as error:
            return [error] * len(hands)
        return [self._answer(output, i, hand) for i, (hand, _) in enumerate(hands)]

    def _answer(self, output: NetworkOutput, index: int, hand: CanonicalHand) -> Answer:
        try:
            prediction = to_prediction(output, index, hand=hand, model=self.bundle.identity)
        except PredictionInvalid as error:
            return error
        doubtful = prediction.sd_months > self.bundle.indeterminate_above_months
        return Rejection.INDETERMINATE if doubtful else prediction


def _ignore(_: EngineEvent) -> None:
    """For callers that count nothing."""


def load_predictor(
    folder: Path,
    *,
    device: DeviceChoice = "auto",
    precision: PrecisionChoice = "auto",
    batch_max: int = 1,
    on_event: OnEvent = _ignore,
    read: Read = read,
) -> Predictor:
    """Verify a bundle, then start its gate and its engine (:func:`engine_for`).

    Raises :class:`inference.bundle.BundleInvalid` and :class:`EngineFailed`.
    """
    bundle = load_bundle(folder)
    gate = Gate(bundle.read(GATE_ONNX))
    engine = engine_for(
        bundle, device=device, precision=precision, batch_max=batch_max, on_event=on_event
    )
    return Predictor(bundle, gate, engine, read=read)
