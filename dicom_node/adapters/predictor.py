"""The model of a bundle behind the Predictor port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import dicom_node
from dicom_node.domain.assessment import HandBox, ModelIdentity, Note, Prediction, Saliency
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Sex
from dicom_node.logs import log
from dicom_node.metrics import engine_event, network_runs_on
from dicom_node.ports import PredictionRequest

if TYPE_CHECKING:
    from inference import prediction
    from inference.engines.choice import DeviceChoice, PrecisionChoice
    from inference.engines.engine import Device, EngineEvent
    from inference.predictor import Answer, Predictor
    from inference.preprocess import Read

MODELS = Path(dicom_node.__file__).parent.parent / "config" / "models"
"""Folder of the released bundles."""


class BundlePredictor:
    """A bundle with the engine for ``device``, both loaded when they are first needed.

    ``read``: what makes a radiograph of a file, in this process unless told. ``model``: name,
    ``name-version`` or absolute path of a bundle; a name means its newest version.
    Every method raises ``Permanent`` (PREDICTOR_UNAVAILABLE) when the bundle is missing or is not
    what its manifest says, and when the engine cannot start.
    """

    def __init__(
        self,
        *,
        model: str,
        device: DeviceChoice = "auto",
        precision: PrecisionChoice = "auto",
        batch_max: int = 1,
        read: Read | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._precision = precision
        self._batch_max = batch_max
        self._read = read

    @property
    def device(self) -> Device:
        """Where the network runs now."""
        return self._predictor.device

    @property
    def folder(self) -> Path:
        """Where the bundle's files lie; a folder given by its path need not exist."""
        with _unavailable():
            return self._folder

    def verify(self) -> ModelIdentity:
        """Hash every file of the bundle again and check that the model allows the precision,
        without an engine."""
        from inference.bundle import load_bundle
        from inference.engines.choice import allowed_precision

        with _unavailable():
            bundle = load_bundle(self._folder)
            allowed_precision(bundle, self._precision)
        return _identity(bundle.identity)

    def warm(self) -> ModelIdentity:
        """Load the model, run the network once and say which weights it has."""
        with _unavailable():
            self._predictor.warm()
        network_runs_on(self.device)
        return _identity(self._predictor.bundle.identity)

    @cached_property
    def _folder(self) -> Path:
        from inference.bundle import find_bundle

        return (
            Path(self._model)
            if Path(self._model).is_absolute()
            else find_bundle(MODELS, self._model)
        )

    @cached_property
    def _predictor(self) -> Predictor:
        from inference.predictor import load_predictor
        from inference.preprocess import read

        with _unavailable():
            return load_predictor(
                self._folder,
                device=self._device,
                precision=self._precision,
                batch_max=self._batch_max,
                on_event=_record,
                read=self._read or read,
            )

    def predict(
        self, requests: Iterable[PredictionRequest]
    ) -> list[Prediction | Reason | Exception]:
        """One answer per request, in order; see :class:`dicom_node.ports.Predictor`."""
        answers = self._predictor.predict((item.path, item.sex is Sex.MALE) for item in requests)
        return [_answer(answer) for answer in answers]


def _record(event: EngineEvent) -> None:
    """Count what happened to the engine; what an operator should see is also a log line."""
    from inference.engines.engine import EngineEvent

    engine_event(event)
    match event:
        case EngineEvent.DEVICE_LOST:
            log("gpu_lost")
            network_runs_on("cpu")
        case EngineEvent.DEVICE_RETURNED:
            log("gpu_returned")
            network_runs_on("cuda")
        case EngineEvent.OUT_OF_MEMORY:
            log("gpu_memory_short")
        case EngineEvent.OUTPUT_NOT_FINITE:
            log("gpu_output_wrong")


@contextmanager
def _unavailable() -> Iterator[None]:
    from inference.bundle import BundleInvalid
    from inference.prediction import EngineFailed

    try:
        yield
    except (BundleInvalid, EngineFailed) as error:
        raise Permanent(Fault.PREDICTOR_UNAVAILABLE, str(error)) from error


def _answer(answer: Answer) -> Prediction | Reason | Exception:
    from inference.decoding_process import DecodingStopped
    from inference.prediction import PredictionInvalid, Rejection

    if isinstance(answer, Rejection):
        return Reason(answer.value)
    if isinstance(answer, DecodingStopped):
        return Permanent(Fault.DECODING_STOPPED, str(answer))
    if isinstance(answer, PredictionInvalid):
        return Permanent(Fault.PREDICTION_INVALID, str(answer))
    if isinstance(answer, OSError):
        return Transient(Fault.STORAGE_UNAVAILABLE, f"the object cannot be read: {answer.strerror}")
    if isinstance(answer, Exception):
        return Transient(Fault.PREDICTOR_UNAVAILABLE, str(answer))
    return Prediction(
        bone_age_months=answer.bone_age_months,
        sd_months=answer.sd_months,
        hand_box=_hand_box(answer.hand_box),
        findings=tuple(Note(finding.value) for finding in answer.findings),
        saliency=_saliency(answer.saliency),
        model=_identity(answer.model),
    )


def _identity(identity: prediction.ModelIdentity) -> ModelIdentity:
    return ModelIdentity(name=identity.name, version=identity.version, sha256=identity.sha256)


def _hand_box(box: prediction.HandBox) -> HandBox:
    return HandBox(left=box.left, top=box.top, right=box.right, bottom=box.bottom)


def _saliency(found: prediction.Saliency) -> Saliency:
    levels = tuple(tuple(row) for row in found.levels.tolist())
    return Saliency(box=_hand_box(found.box), levels=levels)
