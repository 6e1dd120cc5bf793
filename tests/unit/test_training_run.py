"""A whole small run with the real parts: prepare, train, resume, evaluate, export, load."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.preprocess import to_network_input
from inference.training.prepare import load_radiographs, prepare
from inference.training.run_config import RunConfig, read_run_config
from tests.builders.images import RSNA, drawn_hand, real_radiographs

TRAINING = Path(prepare.__code__.co_filename).parent
IMAGES = 48
RESERVED = ("1003", "1005")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The released network, on 64-pixel images for a few steps."""
    released = read_run_config(TRAINING / "configs" / "lite0-160.toml")
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
        first = np.asarray(Image.open(io.BytesIO(archive.read("1000.jpg"))))
    assert np.array_equal(radiographs.images[0], to_network_input(first, 64))


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


def test_a_run_trains_resumes_and_becomes_a_bundle_that_both_engines_run(
    config: RunConfig, data: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    pytest.importorskip("onnx", reason="needs the train extra")
    from inference.bundle import load_bundle
    from inference.engines.onnx import OnnxEngine
    from inference.training.export import export
    from inference.training.train import train

    out = tmp_path / "run"
    prepared = prepare(config, data, out, splits=tmp_path)
    train(replace(config, epochs=1), prepared, out, workers=0, imagenet=None)
    begun = torch.load(out / "checkpoint.pt", weights_only=True)
    train(config, prepared, out, workers=0, imagenet=None)
    ended = torch.load(out / "checkpoint.pt", weights_only=True)
    assert (begun["step"], ended["step"]) == (5, 10)
    assert any(not torch.equal(a, ended["average"][k]) for k, a in begun["average"].items())
    with (out / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]

    bundle = load_bundle(export(config, prepared, out, tmp_path / "bundle"))
    assert (bundle.identity.name, bundle.side) == (config.name, 64)
    radiographs = load_radiographs(prepared)
    output = OnnxEngine(bundle).run(radiographs.images[:3, None], radiographs.male[:3, None])
    assert np.isfinite(output.mean_months).all()
    with pytest.raises(FileExistsError):
        export(config, prepared, out, tmp_path / "bundle")
