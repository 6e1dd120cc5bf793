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
from inference.bundle import find_bundle, load_bundle
from inference.prediction import (
    EngineFailed,
    NetworkOutput,
    Prediction,
    PredictionInvalid,
    Rejection,
)
from inference.predictor import Predictor, load_predictor
from tests.builders.dicom_files import write_file
from tests.builders.images import drawn_hand, radiograph, real_file, real_radiographs

REPOSITORY = Path(inference.__file__).parent.parent
BUNDLE = find_bundle(REPOSITORY / "config" / "models", "boneage-lite0")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The released model on the CPU."""
    return load_predictor(BUNDLE, device="cpu")


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
    assert isinstance(answers[5], Rejection)
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
        return NetworkOutput(mean_months=ones * self._mean, sd_months=ones * self._deviation)


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
    predictor = Predictor(load_bundle(BUNDLE), FixedEngine(mean, deviation))
    [answer] = predictor.predict([(hand, True)])
    assert isinstance(answer, PredictionInvalid)


def test_an_engine_that_stops_leaves_refusals_as_they_are(hand: Path, tmp_path: Path) -> None:
    blank = write_file(tmp_path / "b.dcm", radiograph(drawn_hand() * 0, bits_stored=12))
    predictor = Predictor(load_bundle(BUNDLE), FixedEngine(0, 0, EngineFailed("out of memory")))
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


def test_cuda_without_a_device_says_what_to_do() -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EngineFailed, match="or use the CPU"):
        load_predictor(BUNDLE, device="cuda")


def test_cuda_without_torch_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inference.engines.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineFailed, match=r"needs torch: pip install"):
        load_predictor(BUNDLE, device="cuda")


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
