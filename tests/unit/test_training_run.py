"""A whole small run with the real parts: prepare, train, resume, evaluate, export, load."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.frame import within_frame
from inference.localize import find_hand
from inference.prediction import HandBox
from inference.preprocess import to_network_input, to_stored_size
from inference.training.prepare import load_radiographs, prepare
from inference.training.run_config import DistillationConfig, RunConfig, read_run_config
from tests.builders.images import RSNA, drawn_hand, real_radiographs

TRAINING = Path(prepare.__code__.co_filename).parent
IMAGES = 48
RESERVED = ("1003", "1005")
HANDLESS = "1047"
"""Drawn without a hand."""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The released network, on 64-pixel images for a few steps."""
    released = read_run_config(TRAINING / "configs" / "lite0-352-hand.toml")
    return replace(released, side=64, epochs=2, batch=8, validation_images=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the labelled radiographs', with drawn hands."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(2)
    hand = drawn_hand(rows=299, columns=299, levels=256).astype(np.uint8)
    ids = [str(1000 + i) for i in range(IMAGES)]
    with zipfile.ZipFile(folder / "rsna-299.zip", "w") as archive:
        for image_id in ids:
            shifted = np.roll(hand, int(rng.integers(-20, 20)), axis=1)
            if image_id == HANDLESS:
                shifted = np.tile(np.linspace(0, 255, 299).astype(np.uint8), (299, 1))
            encoded = io.BytesIO()
            Image.fromarray(shifted).save(encoded, "JPEG", quality=94)
            archive.writestr(f"{image_id}.jpg", encoded.getvalue())
    lines = [f"{i},{'MF'[n % 2]},{24 + 3 * n}" for n, i in enumerate(ids)]
    (folder / "labels.csv").write_text("\n".join(["image_id,sex,bone_age_months", *lines]) + "\n")
    (folder / "full.csv").write_text("\n".join(["image_id", *RESERVED]) + "\n")
    return folder


def test_prepare_keeps_reserved_images_out_of_training_and_records_the_split(
    config: RunConfig, data: Path, tmp_path: Path
) -> None:
    target = prepare(config, data, tmp_path / "run", splits=tmp_path)
    radiographs = load_radiographs(target)
    assert radiographs.images.shape == (IMAGES, 64, 64)
    assert int(radiographs.validation.sum()) == config.validation_images
    held_back = set(radiographs.image_ids[radiographs.validation].tolist())
    assert held_back >= {int(image_id) for image_id in RESERVED}
    with (tmp_path / f"seed-{config.seed}.csv").open(newline="") as file:
        recorded = {row["image_id"] for row in csv.DictReader(file) if row["split"] == "validation"}
    assert recorded == {str(image_id) for image_id in held_back}
    with zipfile.ZipFile(data / "rsna-299.zip") as archive:
        first, last = (
            np.asarray(Image.open(io.BytesIO(archive.read(f"{name}.jpg"))))
            for name in ("1000", HANDLESS)
        )
    first, last = (to_stored_size(grey[within_frame(grey)]) for grey in (first, last))
    hand = find_hand(first)
    assert hand is not None
    assert hand.box.right - hand.box.left < 280
    assert np.array_equal(radiographs.images[0], to_network_input(first, hand.box, 64))
    whole = HandBox(left=0, top=0, right=299, bottom=299)
    index = radiographs.image_ids.tolist().index(int(HANDLESS))
    assert np.array_equal(radiographs.images[index], to_network_input(last, whole, 64))


def test_prepare_refuses_a_split_other_than_the_recorded_one(
    config: RunConfig, data: Path, tmp_path: Path
) -> None:
    prepare(config, data, tmp_path / "first", splits=tmp_path)
    other = replace(config, validation_images=9)
    with pytest.raises(ValueError, match="records another split"):
        prepare(other, data, tmp_path / "second", splits=tmp_path)


def test_the_recorded_split_holds_back_every_full_size_radiograph() -> None:
    full = {row["image_id"] for row in real_radiographs()}
    with (TRAINING / "splits" / "seed-2026.csv").open(newline="") as file:
        split = {row["image_id"]: row["split"] for row in csv.DictReader(file)}
    with (RSNA / "labels.csv").open(newline="") as file:
        assert [row["image_id"] for row in csv.DictReader(file)] == list(split)
    assert not [image_id for image_id in full if split.get(image_id) == "train"]
    assert list(split.values()).count("validation") == 1000


def test_a_run_trains_resumes_and_becomes_a_release_that_both_engines_run(
    config: RunConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    pytest.importorskip("onnx", reason="needs the train extra")
    from inference.bundle import load_bundle
    from inference.engines.onnx import OnnxEngine
    from inference.training.export import export
    from inference.training.train import train

    out, gate = tmp_path / "run", tmp_path / "gate"
    prepared = prepare(config, data, out, splits=tmp_path)
    train(replace(config, epochs=1), prepared, out, workers=0, weights=None)
    begun = torch.load(out / "checkpoint.pt", weights_only=True)
    train(config, prepared, out, workers=0, weights=None)
    ended = torch.load(out / "checkpoint.pt", weights_only=True)
    assert (begun["step"], ended["step"]) == (5, 10)
    changed = {k for k, a in begun["average"].items() if not torch.equal(a, ended["average"][k])}
    assert {"_conv_head.weight", "_blocks.5._bn1.running_mean"} <= changed
    frozen = ("_conv_stem.", "_bn0.", *(f"_blocks.{block}." for block in range(5)))
    assert config.optimizer.frozen_blocks == 5
    assert not [name for name in changed if name.startswith(frozen)]
    with (out / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]

    with pytest.raises(FileNotFoundError, match=r"gate\.onnx is missing.*training\.gate evaluate"):
        export(config, prepared, out, gate=gate, folder=None)
    write_gate(gate)
    with pytest.raises(
        FileNotFoundError, match=r"robustness\.json is missing.*training robustness"
    ):
        export(config, prepared, out, gate=gate, folder=None)
    (out / "robustness.json").write_text(json.dumps(ROBUSTNESS))
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    folder = export(config, prepared, out, gate=gate, folder=None)
    assert folder.resolve() == tmp_path / "config" / "models" / f"{config.name}-{config.version}"
    bundle = load_bundle(folder)
    assert (bundle.identity.name, bundle.side) == (config.name, 64)
    radiographs = load_radiographs(prepared)
    output = OnnxEngine(bundle).run(radiographs.images[:3, None], radiographs.male[:3, None])
    assert np.isfinite(output.mean_months).all()
    assert output.saliency.shape == (3, 2, 2)
    assert bundle.metadata["gate"]["hands_as_stored"] == GATE["hands_as_stored"]
    assert bundle.metadata["robustness"] == ROBUSTNESS
    check_card(folder, tmp_path / "docs")
    with pytest.raises(FileExistsError):
        export(config, prepared, out, gate=gate, folder=None)


def write_gate(folder: Path) -> None:
    """An evaluated gate's files; export copies them unread, but for the figures."""
    folder.mkdir()
    for name in ("gate.onnx", "gate.safetensors", "roc.png"):
        (folder / name).write_bytes(name.encode())
    (folder / "gate.json").write_text(json.dumps(GATE))


def check_card(bundle: Path, docs: Path) -> None:
    """The project's copy of the card is the bundle's, and its pictures are there."""
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert (docs / "model-card.md").read_text(encoding="utf-8") == card
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", card)
    assert len(pictures) == 4
    for picture in pictures:
        assert (docs / picture).read_bytes() == (bundle / "docs" / picture).read_bytes()
    assert "| turned by 90° | 0.4% | 1.2 | +0.3 | 7.1 |" in card
    assert "by more than 3 months on average: inverted." in card
    assert "| hands as stored | 1000 | 0.4% |" in card
    assert "| no assessable hand: CXR | 800 | 99.5% |" in card
    assert "98.0% are turned right" in card


def _hands(views: int) -> dict[str, float]:
    return {
        "views": views,
        "refused": 0.004,
        "kind_correct": 0.99,
        "quarter_turns_correct": 0.98,
        "polarity_correct": 0.97,
        "thumb_side_correct": 0.96,
    }


GATE: dict[str, Any] = {
    "hands_as_stored": _hands(1000),
    "hands_in_16_lies": _hands(16000),
    "random_views_hand": _hands(500),
    "random_views_two_hands": _hands(500),
    "odd_as_stored": {"refused": ["1"]},
    "negatives": {"CXR": {"views": 800, "refused": 0.995}},
    "negatives_all": {"views": 800, "refused": 0.995},
    "area_under_roc": 0.999,
    "unseen_body_parts": None,
}
AS_STORED: dict[str, Any] = {
    "images": 500,
    "changes": {
        "turned by 90°": {
            "refused": 0.004,
            "mean_absolute_shift_months": 1.2,
            "mean_shift_months": 0.3,
            "mae_months": 7.1,
        },
        "inverted": {
            "refused": 0.0,
            "mean_absolute_shift_months": 3.1,
            "mean_shift_months": -0.3,
            "mae_months": 9.1,
        },
    },
}
ROBUSTNESS = AS_STORED | {"full_size": AS_STORED | {"images": 24}}


def test_a_run_learns_from_its_teachers(config: RunConfig, data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    from inference.network import BoneAgeNet, mirrored_distribution
    from inference.training.distillation import taught, teach
    from inference.training.train import train

    small = replace(config, side=config.side // 2)
    said, paths = [], []
    for name, of in (("a", config), ("b", small)):
        folder = tmp_path / name
        prepared = prepare(of, data, folder, splits=tmp_path)
        teacher = BoneAgeNet(**vars(of.network)).eval()
        torch.save({"average": teacher.state_dict()}, folder / "checkpoint.pt")
        paths.append(teach(of, prepared, folder))
        radiographs = load_radiographs(prepared)
        image = torch.from_numpy(radiographs.images[5:6, None])
        male = torch.full((1, 1), float(radiographs.male[5]))
        with torch.no_grad():
            said.append(mirrored_distribution(teacher, image, male)[0])
    distillation = DistillationConfig(teachers=tuple(paths), weight=0.5)
    student = replace(config, epochs=1, distillation=distillation)
    prepared = tmp_path / "a" / f"radiographs-{config.side}.npz"
    radiographs = load_radiographs(prepared)
    found = taught(student, radiographs)
    assert found is not None
    assert found.shape == (IMAGES, 240)
    assert np.allclose(found[5], (said[0] + said[1]) / 2, atol=1e-5)
    train(student, prepared, tmp_path / "run", workers=0, weights=None)
    assert (tmp_path / "run" / "checkpoint.pt").exists()

    others = replace(radiographs, image_ids=radiographs.image_ids + 1)
    with pytest.raises(ValueError, match=r"a/taught\.npz speaks of other radiographs"):
        taught(student, others)
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"b/taught\.npz is missing: run the step teach"):
        taught(student, radiographs)
    assert taught(config, radiographs) is None


def test_a_run_starts_from_a_bundles_weights(config: RunConfig, data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    from safetensors.torch import save_file

    from inference.network import BoneAgeNet
    from inference.training.train import train

    given = BoneAgeNet(**vars(config.network)).state_dict()
    save_file(given, tmp_path / "model.safetensors")
    still = replace(
        config,
        epochs=1,
        optimizer=replace(config.optimizer, backbone_rate=0.0, head_rate=0.0),
    )
    prepared = prepare(still, data, tmp_path / "run", splits=tmp_path)
    train(still, prepared, tmp_path / "run", workers=0, weights=tmp_path / "model.safetensors")
    ended = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert torch.equal(ended["network"]["head.1.weight"], given["head.1.weight"])
    assert torch.equal(ended["network"]["_conv_stem.weight"], given["_conv_stem.weight"])
