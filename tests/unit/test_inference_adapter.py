"""The Predictor port over a bundle: values and errors in the node's own words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_node.adapters import predictor as adapter
from dicom_node.adapters.predictor import MODELS, BundlePredictor
from dicom_node.domain.assessment import HandBox, Note, Prediction, Saliency
from dicom_node.domain.eligibility import MAX_PIXELS, MIN_SIDE_PIXELS, Reason
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Sex
from dicom_node.ports import PredictionRequest, Predictor
from inference import decode, prediction
from inference.bundle import find_bundle
from inference.engines.onnx import OnnxEngine
from inference.prediction import EngineFailed, Finding, NetworkOutput, Rejection
from tests.builders.dicom_files import write_file
from tests.builders.exams import drawn_radiograph
from tests.builders.images import radiograph


@pytest.fixture(scope="module")
def predictor() -> BundlePredictor:
    """The released model on the CPU."""
    return BundlePredictor(model="boneage-lite0", device="cpu")


@pytest.fixture
def request_for_hand(tmp_path: Path) -> PredictionRequest:
    """A girl's phantom, which the model is certain enough about."""
    drawn = drawn_radiograph(bone_age_months=170.0, sex="F")
    path = write_file(tmp_path / "hand.dcm", radiograph(drawn.pixels, bits_stored=12))
    return PredictionRequest(path=path, sex=Sex.FEMALE)


def test_a_hand_gets_a_prediction_of_the_verified_model(
    predictor: BundlePredictor, request_for_hand: PredictionRequest
) -> None:
    port: Predictor = predictor
    [answer] = port.predict([request_for_hand])
    assert isinstance(answer, Prediction)
    assert answer.model == predictor.warm() == predictor.verify()
    assert predictor.device == "cpu"
    assert 0 < answer.bone_age_months < 240
    assert answer.hand_box.left < answer.hand_box.right


def test_the_sex_of_the_request_reaches_the_network(
    predictor: BundlePredictor, request_for_hand: PredictionRequest
) -> None:
    boy = PredictionRequest(path=request_for_hand.path, sex=Sex.MALE)
    his, hers = predictor.predict([boy, request_for_hand])
    assert isinstance(his, Prediction)
    assert isinstance(hers, Prediction)
    assert his.bone_age_months - hers.bone_age_months > 1.0


def test_every_rejection_is_a_reason_that_can_be_counted() -> None:
    for rejection in Rejection:
        assert adapter._answer(rejection) is Reason(rejection.value)


def test_every_finding_is_a_note_for_the_reader() -> None:
    assert {finding.value for finding in Finding} <= {note.value for note in Note}


def test_findings_and_saliency_come_in_the_words_of_the_node() -> None:
    box = {"left": 1.5, "top": 2.0, "right": 90.0, "bottom": 120.25}
    wider = {"left": 0.0, "top": 0.0, "right": 95.5, "bottom": 128.0}
    levels = np.array([[0, 255], [7, 128], [64, 1]], np.uint8)
    answer = adapter._answer(
        prediction.Prediction(
            bone_age_months=100.5,
            sd_months=6.25,
            hand_box=prediction.HandBox(**box),
            saliency=prediction.Saliency(box=prediction.HandBox(**wider), levels=levels),
            findings=(Finding.TWO_HANDS_LEFT_ASSESSED, Finding.IMAGE_TURNED),
            model=prediction.ModelIdentity(name="m", version="2", sha256="ab" * 32),
        )
    )
    assert isinstance(answer, Prediction)
    assert answer.hand_box == HandBox(**box)
    assert answer.findings == (Note.TWO_HANDS_LEFT_ASSESSED, Note.IMAGE_TURNED)
    assert answer.saliency == Saliency(box=HandBox(**wider), levels=((0, 255), (7, 128), (64, 1)))
    assert isinstance(answer.saliency.levels[0][0], int)


def test_screening_and_decoding_have_the_same_limits() -> None:
    assert (MIN_SIDE_PIXELS, MAX_PIXELS) == (decode.MIN_SIDE_PIXELS, decode.MAX_PIXELS)


def test_unreadable_and_blank_pixels_are_reasons(
    predictor: BundlePredictor, request_for_hand: PredictionRequest, tmp_path: Path
) -> None:
    black = radiograph(np.zeros((300, 300), np.uint16), bits_stored=12)
    blank = write_file(tmp_path / "blank.dcm", black)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(request_for_hand.path.read_bytes()[:3000])
    requests = [PredictionRequest(path=path, sex=Sex.MALE) for path in (broken, blank)]
    assert predictor.predict(requests) == [Reason.PIXELS_UNREADABLE, Reason.IMAGE_BLANK]


def test_a_file_that_cannot_be_read_is_tried_again(
    predictor: BundlePredictor, tmp_path: Path
) -> None:
    request = PredictionRequest(path=tmp_path / "gone.dcm", sex=Sex.MALE)
    [answer] = predictor.predict([request])
    assert isinstance(answer, Transient)
    assert answer.fault is Fault.STORAGE_UNAVAILABLE
    assert str(tmp_path) not in str(answer)


def test_numbers_that_are_no_bone_age_park_the_job(
    request_for_hand: PredictionRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = np.array([np.nan], np.float32)
    saliency = np.zeros((1, 8, 8), np.float32)
    output = NetworkOutput(mean_months=nan, sd_months=nan, saliency=saliency)
    monkeypatch.setattr(OnnxEngine, "run", lambda *_: output)
    [answer] = BundlePredictor(model="boneage-lite0", device="cpu").predict([request_for_hand])
    assert isinstance(answer, Permanent)
    assert answer.fault is Fault.PREDICTION_INVALID


def test_an_engine_that_stops_is_tried_again(
    request_for_hand: PredictionRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> NetworkOutput:
        raise EngineFailed("onnxruntime stopped")

    monkeypatch.setattr(OnnxEngine, "run", stop)
    [answer] = BundlePredictor(model="boneage-lite0", device="cpu").predict([request_for_hand])
    assert isinstance(answer, Transient)
    assert answer.fault is Fault.PREDICTOR_UNAVAILABLE


def test_a_tampered_bundle_is_noticed_while_the_node_runs(tmp_path: Path) -> None:
    folder = shutil.copytree(find_bundle(MODELS, "boneage-lite0"), tmp_path / "m-1.0.0")
    predictor = BundlePredictor(model=str(folder), device="cpu")
    predictor.warm()
    weights = folder / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(Permanent, match=r"model\.safetensors") as caught:
        predictor.verify()
    assert caught.value.fault is Fault.PREDICTOR_UNAVAILABLE


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(Permanent, match="available: boneage-lite0") as caught:
        BundlePredictor(model="other").warm()
    assert caught.value.fault is Fault.PREDICTOR_UNAVAILABLE


def test_importing_the_adapter_loads_no_model_library() -> None:
    program = (
        "import sys, dicom_node.adapters.predictor\n"
        "banned = {'torch', 'monai', 'onnxruntime', 'scipy', 'pydicom'}\n"
        "assert not banned & set(sys.modules), banned & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=MODELS.parents[1], check=True)
