"""A bundle is what its manifest says, or it is not used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inference
from inference import bundle as bundles
from inference.bundle import (
    FILES,
    PICTURES,
    BundleInvalid,
    bundle_folders,
    find_bundle,
    load_bundle,
)
from tests.builders.images import drawn_hand

MODELS = Path(inference.__file__).parent.parent / "config" / "models"


@pytest.fixture(scope="module")
def released() -> Path:
    """The newest released bundle."""
    return find_bundle(MODELS, "boneage-lite0")


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(released, tmp_path / released.name))


def seal(folder: Path) -> None:
    """Make the manifest agree with what lies in the folder."""
    sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / "manifest.json").write_text(json.dumps({"sha256": sha256}))


def test_the_package_under_test_is_this_repositorys() -> None:
    assert Path(inference.__file__).parents[1] == Path(__file__).parents[2]


def test_the_identity_is_the_name_the_version_and_the_hash_of_the_weights(released: Path) -> None:
    identity = load_bundle(released).identity
    weights = (released / "models" / "model.safetensors").read_bytes()
    assert f"{identity.name}-{identity.version}" == released.name
    assert identity.sha256 == hashlib.sha256(weights).hexdigest()


def test_the_limit_of_doubt_is_the_metadatas(released: Path) -> None:
    bundle = load_bundle(released)
    calibration = bundle.metadata["calibration"]
    assert bundle.indeterminate_above_months == calibration["indeterminate_above_months"]
    assert bundle.indeterminate_above_months > calibration["sd_months"]["mean"]


def test_released_bundles_carry_figures_calibration_terms_and_formats(released: Path) -> None:
    metadata = load_bundle(released).metadata
    for field in (
        "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
        "required_packages_version", "task", "description", "authors", "copyright", "data_source",
        "intended_use", "network_data_format",
    ):  # fmt: skip
        assert metadata[field], field
    assert set(metadata["network_data_format"]["inputs"]) == {"image", "male"}
    assert metadata["evaluation"]["images"] == 1000
    assert metadata["evaluation"]["mae_months"] < 12
    assert metadata["evaluation"]["sex_check"]["accuracy"] > 0
    assert metadata["robustness"]["changes"]
    assert metadata["gate"]["negatives_all"]["refused"] > 0.9
    for level, share in metadata["calibration"]["coverage"].items():
        assert share == pytest.approx(float(level), abs=0.03)
    terms = (released / "LICENSE").read_text(encoding="utf-8")
    assert "RSNA Pediatric Bone Age Challenge (2017)" in terms
    assert "research and non-commercial use only" in terms


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_noticed_before_anything_is_opened(
    name: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    opened: list[object] = []
    monkeypatch.setattr(bundles, "_check_configuration", lambda *seen: opened.append(seen))
    with pytest.raises(BundleInvalid, match=f"{name} is not the file that manifest.json names"):
        load_bundle(copy)
    assert opened == []


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleInvalid, match=name):
        load_bundle(copy)


def test_a_file_that_the_manifest_does_not_name_is_refused(copy: Path) -> None:
    (copy / "models" / "model.pt").write_bytes(b"pickle")
    with pytest.raises(BundleInvalid, match=r"models/model\.pt"):
        load_bundle(copy)


def test_a_file_that_changes_after_verification_is_not_read(copy: Path) -> None:
    bundle = load_bundle(copy)
    (copy / "models" / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleInvalid, match=r"model\.onnx"):
        bundle.read("models/model.onnx")


@pytest.mark.parametrize(
    "addition",
    [
        {"x": "$__import__('os').getcwd()"},
        {"x": {"_target_": "os.system", "command": "true"}},
        {"x": ["%other.json::y"]},
        {"network_def": {"_target_": "torch.load", "f": "x"}},
    ],
    ids=["expression", "target", "macro", "pickle"],
)
def test_a_configuration_that_could_run_other_code_is_refused(
    addition: dict[str, Any], copy: Path
) -> None:
    path = copy / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | addition))
    seal(copy)
    with pytest.raises(BundleInvalid, match="may not run code"):
        load_bundle(copy)


def test_a_bundle_without_a_limit_of_doubt_is_refused(copy: Path) -> None:
    path = copy / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["calibration"]["indeterminate_above_months"]
    path.write_text(json.dumps(metadata))
    seal(copy)
    with pytest.raises(BundleInvalid, match="indeterminate_above_months"):
        load_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}', "not json"])
def test_a_manifest_that_is_none_is_refused(text: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleInvalid):
        load_bundle(copy)


def test_a_name_means_its_newest_version(tmp_path: Path) -> None:
    for name in ("m-1.9.0", "m-1.10.0", "m-1.2.3", "m-large-2.0.0", "notes-draft"):
        (tmp_path / name).mkdir()
    assert find_bundle(tmp_path, "m").name == "m-1.10.0"
    assert find_bundle(tmp_path, "m-1.2.3").name == "m-1.2.3"
    assert find_bundle(tmp_path, "m-large").name == "m-large-2.0.0"
    assert [folder.name for folder in bundle_folders(tmp_path)] == [
        "m-1.2.3", "m-1.9.0", "m-1.10.0", "m-large-2.0.0",
    ]  # fmt: skip
    with pytest.raises(BundleInvalid, match=r"available: m-1\.2\.3"):
        find_bundle(tmp_path, "n")


def test_the_monai_preprocessing_is_the_nodes(released: Path) -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from monai.bundle import ConfigParser

    from inference.localize import find_hand
    from inference.preprocess import to_network_input, to_stored_size

    bundle = load_bundle(released)
    parser = ConfigParser(json.loads(bundle.read("configs/inference.json")))
    transform = parser.get_parsed_content("preprocessing")
    image = drawn_hand(rows=700, columns=500, levels=4096).astype(np.uint16)
    stored = to_stored_size(image)
    hand = find_hand(stored)
    assert hand is not None
    assert np.array_equal(transform(image)[0], to_network_input(stored, hand.box, bundle.side))
    with pytest.raises(ValueError, match="no hand found"):
        transform(np.zeros((700, 500)))


def test_the_documentation_shows_the_card_of_the_newest_bundle(released: Path) -> None:
    docs = MODELS.parent.parent / "docs"
    card = (released / "docs" / "README.md").read_bytes()
    assert (docs / "model-card.md").read_bytes() == card
    for name in PICTURES:
        assert (docs.parent / name).read_bytes() == (released / name).read_bytes()
