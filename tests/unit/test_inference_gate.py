"""The released gate on drawn hands, real radiographs and images of other things."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file

import inference
from inference.bundle import GATE_ONNX, find_bundle, load_bundle
from inference.decode import decode
from inference.gate import GATE_SIDE, Gate, Kind, View, to_gate_input
from inference.phantom.exams import phantom_exams
from inference.phantom.radiograph import draw
from inference.prediction import EngineFailed
from inference.preprocess import STORED_SIDE, to_stored_size
from tests.builders.images import RSNA, drawn_hand, real_pixels, real_radiographs

Grey = NDArray[np.float32]
INFERENCE = Path(inference.__file__).parent
LIES = list(product(range(4), (False, True), (False, True)))
REFUSED = (Kind.INCOMPLETE, Kind.NOT_A_HAND)


@pytest.fixture(scope="module")
def gate() -> Gate:
    """The released bundle's gate."""
    bundle = load_bundle(find_bundle(INFERENCE.parent / "config" / "models", "boneage-lite0"))
    return Gate(bundle.read(GATE_ONNX))


@pytest.fixture(scope="module")
def phantoms() -> list[Grey]:
    """Drawn radiographs of left hands that training has not seen."""
    drawn = [
        draw(
            bone_age_months=exam.bone_age_months, sex=exam.sex, seed=exam.seed, rows=600,
            columns=450,
        )
        for exam in phantom_exams(8, seed=71)
    ]  # fmt: skip
    return [np.rint(to_stored_size(radiograph.pixels)) for radiograph in drawn]


def lying(stored: Grey, *, turns: int, mirrored: bool, inverted: bool) -> Grey:
    """An upright left hand with bright bones, turned counter-clockwise after mirroring."""
    turned = np.rot90(stored[:, ::-1] if mirrored else stored, turns)
    return np.ascontiguousarray(turned.max() + turned.min() - turned if inverted else turned)


def upright(stored: Grey, view: View) -> Grey:
    """What the view says that puts the image right."""
    turned = np.rot90(stored, view.quarter_turns)
    return turned.max() + turned.min() - turned if view.inverted else turned


@pytest.mark.parametrize(("turns", "mirrored", "inverted"), LIES)
def test_a_phantom_is_a_hand_however_it_lies(
    gate: Gate, phantoms: list[Grey], turns: int, mirrored: bool, inverted: bool
) -> None:
    refused = 0
    for stored in phantoms:
        laid = lying(stored, turns=turns, mirrored=mirrored, inverted=inverted)
        view = gate.look(laid)
        refused += view.kind is not Kind.HAND
        assert np.array_equal(upright(laid, view), stored[:, ::-1] if mirrored else stored)
        assert (view.thumb_right > 0.5) is not mirrored
    assert refused <= 1  # one of the eight drawings is at the limit of "incomplete"


@pytest.mark.parametrize(("turns", "inverted"), list(product(range(4), (False, True))))
def test_two_phantoms_side_by_side_are_two_hands(
    gate: Gate, phantoms: list[Grey], turns: int, inverted: bool
) -> None:
    for left, right in zip(phantoms[::2], phantoms[1::2], strict=True):
        both = to_stored_size(np.hstack([left, right[:, ::-1]]))
        view = gate.look(lying(both, turns=turns, mirrored=False, inverted=inverted))
        assert view.kind is Kind.TWO_HANDS
        assert (view.quarter_turns, view.inverted) == (-turns % 4, inverted)


@pytest.mark.parametrize("border", [0.0, 0.4, 1.0])
def test_a_border_leaves_a_phantom_a_hand(gate: Gate, phantoms: list[Grey], border: float) -> None:
    for stored in phantoms:
        level = stored.min() + border * (stored.max() - stored.min())
        padded = to_stored_size(np.pad(stored, 60, constant_values=level))
        view = gate.look(padded)
        assert (view.kind, view.quarter_turns, view.inverted) == (Kind.HAND, 0, False)


def test_the_hand_of_this_project_s_tests_is_a_hand(gate: Gate) -> None:
    view = gate.look(to_stored_size(drawn_hand()))
    assert (view.kind, view.quarter_turns, view.inverted) == (Kind.HAND, 0, False)


def test_pieces_of_a_phantom_are_refused(gate: Gate, phantoms: list[Grey]) -> None:
    refused = []
    for stored in phantoms:
        for piece in (stored[:90], stored[225:], stored[:, :100], stored[:, 200:]):
            refused.append(gate.look(to_stored_size(piece)).kind in REFUSED)
    assert np.mean(refused) >= 0.9


def test_real_hands_are_hands_however_they_lie(gate: Gate) -> None:
    right = []
    for row in real_radiographs(12):
        stored = to_stored_size(real_pixels(row["image_id"]))
        for turns, mirrored, inverted in LIES:
            view = gate.look(lying(stored, turns=turns, mirrored=mirrored, inverted=inverted))
            seen = (view.kind, view.quarter_turns, view.inverted)
            right.append(seen == (Kind.HAND, -turns % 4, inverted))
    assert np.mean(right) >= 0.97


def test_under_one_percent_of_validation_hands_is_refused(gate: Gate) -> None:
    real_radiographs()
    with (INFERENCE / "training" / "splits" / "seed-2026.csv").open(newline="") as file:
        ids = [row["image_id"] for row in csv.DictReader(file) if row["split"] == "validation"]
    with zipfile.ZipFile(RSNA / "rsna-299.zip") as archive:
        views = []
        for image_id in ids[::2]:
            with Image.open(io.BytesIO(archive.read(f"{image_id}.jpg"))) as image:
                views.append(gate.look(to_stored_size(np.asarray(image.convert("L")))))
    assert len(views) == 500
    assert np.mean([view.kind in REFUSED for view in views]) < 0.01
    assert np.mean([view.quarter_turns == 0 and not view.inverted for view in views]) > 0.98


def test_other_images_are_refused(gate: Gate) -> None:
    """Radiographs of a chest and a lower leg, CT, MR, ultrasound: in pydicom and pydicom-data."""
    pytest.importorskip("torch", reason="the list of images is part of training")
    from inference.training.gate.negatives import pydicom_images

    images = pydicom_images()
    assert len(images) >= 20
    assert {"RG1_J2KI.dcm", "RG3_J2KI.dcm"} <= set(images)
    passed = [
        (name, lie)
        for name, stored in images.items()
        for lie in LIES
        if gate.look(
            lying(stored, turns=lie[0], mirrored=lie[1], inverted=lie[2])
        ).kind not in REFUSED
    ]  # fmt: skip
    assert len(passed) <= 0.01 * len(LIES) * len(images), passed


def test_decoded_radiographs_of_other_parts_are_refused(gate: Gate) -> None:
    for name in ("RG1_UNCI.dcm", "RG1_J2KR.dcm", "RG3_UNCI.dcm", "RG3_J2KR.dcm"):
        grey = decode(Path(get_testdata_file(name) or ""))
        assert gate.look(to_stored_size(grey)).kind is Kind.NOT_A_HAND, name


def test_empty_fields_are_refused(gate: Gate) -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(1000, 30, (STORED_SIDE, STORED_SIDE)).astype(np.float32)
    ramp = np.tile(np.linspace(0, 255, STORED_SIDE, dtype=np.float32), (STORED_SIDE, 1))
    for image in (noise, ramp, ramp.T.copy()):
        assert gate.look(image).kind in REFUSED


def test_the_input_spans_the_second_to_the_98th_percentile() -> None:
    ramp = np.tile(np.linspace(-500, 3000, STORED_SIDE, dtype=np.float32), (STORED_SIDE, 1))
    image = to_gate_input(ramp, GATE_SIDE)
    assert image.shape == (GATE_SIDE, GATE_SIDE)
    assert image.dtype == np.uint8
    assert (image[0, 0], image[0, 64], image[0, -1]) == (0, 129, 255)
    assert not to_gate_input(np.full((9, 9), 7, np.float32), GATE_SIDE).any()


def test_grey_levels_scaled_or_shifted_give_the_same_view(gate: Gate, phantoms: list[Grey]) -> None:
    assert gate.look(phantoms[0] * 3.5 - 900) == gate.look(phantoms[0])


def test_a_look_takes_milliseconds(gate: Gate, phantoms: list[Grey]) -> None:
    times = []
    for _ in range(30):
        begun = time.process_time()
        gate.look(phantoms[0])
        times.append(time.process_time() - begun)
    assert np.median(times) < 0.02


def test_bytes_that_are_no_network_are_an_engine_failure() -> None:
    with pytest.raises(EngineFailed, match="gate network cannot be loaded"):
        Gate(b"not onnx")
