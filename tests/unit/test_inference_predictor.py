"""From DICOM files to bone ages on the CPU, through the same parts that the node runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import inference
from inference.bundle import GATE_ONNX, find_bundle, load_bundle
from inference.engines.engine import Engine
from inference.gate import Gate
from inference.prediction import (
    EngineFailed,
    Finding,
    NetworkOutput,
    Prediction,
    PredictionInvalid,
    Rejection,
)
from inference.predictor import Predictor, load_predictor
from tests.builders.dicom_files import write_file
from tests.builders.exams import drawn_radiograph
from tests.builders.images import radiograph, real_file, real_radiographs

REPOSITORY = Path(inference.__file__).parent.parent
BUNDLE = find_bundle(REPOSITORY / "config" / "models", "boneage-lite0")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The released model on the CPU."""
    return load_predictor(BUNDLE, device="cpu")


def drawn_hand() -> NDArray[np.uint16]:
    """A phantom that the model is certain enough about, as a boy's and as a girl's."""
    return drawn_radiograph(bone_age_months=170.0, sex="F", rows=640, columns=512).pixels


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    """A drawn hand, 12 bits."""
    return write_file(tmp_path / "hand.dcm", radiograph(drawn_hand(), bits_stored=12))


def months(predictor: Predictor, path: Path, *, male: bool = True) -> float:
    """The bone age of one file."""
    [answer] = predictor.predict([(path, male)])
    assert isinstance(answer, Prediction), answer
    return answer.bone_age_months


def test_a_prediction_says_which_weights_made_it(predictor: Predictor, hand: Path) -> None:
    [answer] = predictor.predict([(hand, True)])
    assert isinstance(answer, Prediction)
    assert answer.model == load_bundle(BUNDLE).identity
    assert 0 <= answer.hand_box.left < answer.hand_box.right <= 512
    assert 0 <= answer.hand_box.top < answer.hand_box.bottom <= 640


def test_monochrome1_signed_and_windowed_twins_get_the_same_months(
    predictor: Predictor, hand: Path, tmp_path: Path
) -> None:
    pixels = drawn_hand()
    twins = {
        "inverted": radiograph(
            4095 - pixels, bits_stored=12, PhotometricInterpretation="MONOCHROME1"
        ),
        "signed": radiograph((pixels.astype(np.int32) - 2048).astype(np.int16), bits_stored=12),
        "rescaled": radiograph(pixels, bits_stored=12, RescaleSlope="0.5", RescaleIntercept="7"),
        "wide window": radiograph(pixels, bits_stored=12, WindowCenter="2048", WindowWidth="4096"),
        "negative": radiograph(
            4095 - pixels, bits_stored=12, RescaleSlope="-1", RescaleIntercept="4095"
        ),
    }
    for name, twin in twins.items():
        path = write_file(tmp_path / f"{name}.dcm", twin)
        assert months(predictor, path) == pytest.approx(months(predictor, hand), abs=0.5), name


@pytest.mark.parametrize("level", [0, 4095], ids=["black", "white"])
def test_a_plain_frame_moves_the_box_and_not_the_months(
    predictor: Predictor, hand: Path, tmp_path: Path, level: int
) -> None:
    framed = np.pad(drawn_hand(), ((80, 30), (120, 60)), constant_values=level)
    path = write_file(tmp_path / "framed.dcm", radiograph(framed, bits_stored=12))
    alone, within = (predictor.predict([(file, True)])[0] for file in (hand, path))
    assert isinstance(alone, Prediction)
    assert isinstance(within, Prediction)
    assert within.bone_age_months == pytest.approx(alone.bone_age_months, abs=0.5)
    assert within.hand_box.left == pytest.approx(alone.hand_box.left + 120, abs=4)
    assert within.hand_box.top == pytest.approx(alone.hand_box.top + 80, abs=4)
    assert within.hand_box.right == pytest.approx(alone.hand_box.right + 120, abs=4)
    assert within.hand_box.bottom == pytest.approx(alone.hand_box.bottom + 80, abs=4)


def test_answers_come_in_the_order_of_the_requests(
    predictor: Predictor, hand: Path, tmp_path: Path
) -> None:
    blank = write_file(tmp_path / "b.dcm", radiograph(drawn_hand() * 0 + 9, bits_stored=12))
    inverted = write_file(tmp_path / "i.dcm", radiograph(4095 - drawn_hand(), bits_stored=12))
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(hand.read_bytes()[:5000])
    answers = predictor.predict(
        [(blank, True), (hand, True), (tmp_path / "none.dcm", True), (hand, False),
         (broken, True), (inverted, True)]
    )  # fmt: skip
    assert answers[0] is Rejection.IMAGE_BLANK
    assert isinstance(answers[2], FileNotFoundError)
    assert answers[4] is Rejection.PIXELS_UNREADABLE
    inverted_hand = answers[5]
    assert isinstance(inverted_hand, Prediction)
    assert inverted_hand.findings == (Finding.GREY_SCALE_INVERTED,)
    boy, girl = answers[1], answers[3]
    assert isinstance(boy, Prediction)
    assert isinstance(girl, Prediction)
    assert boy.bone_age_months == pytest.approx(months(predictor, hand), abs=0.01)
    assert girl.bone_age_months == pytest.approx(months(predictor, hand, male=False), abs=0.01)


class FixedEngine:
    """Returns the same numbers for every image, or fails."""

    device: Literal["cpu"] = "cpu"

    def __init__(self, mean: float, deviation: float, failure: EngineFailed | None = None) -> None:
        self._mean, self._deviation, self._failure = mean, deviation, failure

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        """One pair for each image."""
        if self._failure is not None:
            raise self._failure
        assert len(images) == len(male)
        ones = np.ones(len(images), dtype=np.float32)
        return NetworkOutput(
            mean_months=ones * self._mean,
            sd_months=ones * self._deviation,
            saliency=np.ones((len(images), 8, 8), dtype=np.float32),
        )


def released_with(engine: Engine) -> Predictor:
    """The released model's gate before another engine."""
    bundle = load_bundle(BUNDLE)
    return Predictor(bundle, Gate(bundle.read(GATE_ONNX)), engine)


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        (float("nan"), 8.0),
        (float("inf"), 8.0),
        (-0.5, 8.0),
        (240.5, 8.0),
        (100.0, float("nan")),
        (100.0, float("inf")),
        (100.0, 0.0),
    ],
)
def test_numbers_that_are_no_bone_age_are_errors(mean: float, deviation: float, hand: Path) -> None:
    predictor = released_with(FixedEngine(mean, deviation))
    [answer] = predictor.predict([(hand, True)])
    assert isinstance(answer, PredictionInvalid)


def test_an_sd_above_the_models_limit_is_indeterminate(hand: Path) -> None:
    limit = load_bundle(BUNDLE).indeterminate_above_months
    assert 5 < limit < 60
    [stated] = released_with(FixedEngine(100.0, limit)).predict([(hand, True)])
    [doubtful] = released_with(FixedEngine(100.0, limit + 0.1)).predict([(hand, True)])
    assert isinstance(stated, Prediction)
    assert doubtful is Rejection.INDETERMINATE


def test_an_engine_that_stops_leaves_refusals_as_they_are(hand: Path, tmp_path: Path) -> None:
    blank = write_file(tmp_path / "b.dcm", radiograph(drawn_hand() * 0, bits_stored=12))
    predictor = released_with(FixedEngine(0, 0, EngineFailed("out of memory")))
    refused, failed = predictor.predict([(blank, True), (hand, True)])
    assert refused is Rejection.IMAGE_BLANK
    assert isinstance(failed, EngineFailed)


def test_nothing_to_do_is_done(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_cpu_path_imports_neither_torch_nor_the_node(device: str, hand: Path) -> None:
    if device == "auto" and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA device: auto may use it")
    program = (
        "import sys; from pathlib import Path; from inference.predictor import load_predictor\n"
        f"p = load_predictor(Path({str(BUNDLE)!r}), device={device!r}); p.warm()\n"
        f"print(p.device, p.predict([(Path({str(hand)!r}), True)])[0].bone_age_months)\n"
        "banned = {'torch', 'monai', 'dicom_node', 'sr_templates', 'matplotlib'}\n"
        "assert not banned & set(sys.modules), banned & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cpu ")


def test_full_size_radiographs_get_their_bone_age(predictor: Predictor, tmp_path: Path) -> None:
    rows = real_radiographs()
    requests = [(real_file(tmp_path, row["image_id"]), row["sex"] == "M") for row in rows]
    answers = [answer for answer in predictor.predict(requests) if isinstance(answer, Prediction)]
    assert len(answers) == len(rows)
    labels = np.array([float(row["bone_age_months"]) for row in rows])
    errors = np.array([answer.bone_age_months for answer in answers]) - labels
    deviations = np.array([answer.sd_months for answer in answers])
    assert np.abs(errors).mean() < 11.0
    assert (np.abs(errors) < 1.96 * deviations).mean() >= 0.8
