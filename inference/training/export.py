"""Write a trained network with its gate as a bundle: a MONAI bundle with ONNX exports, figures and
a manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import save_file

from inference.bundle import (
    AGREEMENT,
    CURVES,
    GATE_ONNX,
    GATE_ROC,
    GATE_WEIGHTS,
    INFERENCE,
    METADATA,
    MODEL_CARD,
    ONNX,
    PICTURES,
    RELIABILITY,
    TERMS,
    WEIGHTS,
    Bundle,
    hash_files,
    write_manifest,
)
from inference.engines.engine import Precision
from inference.engines.onnx import OnnxEngine
from inference.engines.torch import TorchEngine
from inference.network import BoneAgeEstimator, BoneAgeNet
from inference.prediction import ModelIdentity, NetworkOutput
from inference.training.metadata import metadata
from inference.training.model_card import model_card, terms
from inference.training.prepare import load_radiographs
from inference.training.report import averaged_network, evaluate_checkpoint, load_checkpoint
from inference.training.run_config import RunConfig

MAX_DISAGREEMENT_MONTHS = 0.1
_COMPARED_IMAGES = 64
_OPSET = 17
_RELEASES = Path("config/models")
_DOCUMENTS = Path("docs")


def export(
    config: RunConfig, prepared: Path, out: Path, *, gate: Path, folder: Path | None
) -> Path:
    """Evaluate the run's checkpoint, write its bundle and return the bundle's folder.

    ``gate``: folder of the evaluated gate. Without ``folder`` it is a release: the bundle goes to
    ``config/models/<name>-<version>`` and its model card to ``docs/``. The manifest is written
    last, after both engines gave the same answers. Raises ``FileNotFoundError`` when an earlier
    step's file is missing, ``FileExistsError`` when the folder exists (a released version does not
    change) and ``ValueError`` when the engines disagree.
    """
    _require_steps(prepared, out, gate)
    target = folder or _RELEASES / f"{config.name}-{config.version}"
    if target.exists():
        raise FileExistsError(f"{target} exists: a released version does not change")
    evaluation = evaluate_checkpoint(config, prepared, out)
    robustness = _read_json(out / "robustness.json")
    gate_figures = _read_json(gate / "gate.json")
    described = metadata(config, evaluation, robustness, gate_figures)
    card = model_card(config, evaluation, robustness, gate_figures)
    for name in (METADATA, ONNX, AGREEMENT):
        (target / name).parent.mkdir(parents=True)
    network = averaged_network(config, load_checkpoint(out / "checkpoint.pt"))
    write_models(target, network, evaluation["calibration"], config.side)
    _write_configuration(target, config, evaluation["calibration"])
    precisions = _compare(_unsealed(target, config, evaluation), prepared)
    _copy_files(target, out, gate)
    _write_json(target / METADATA, {**described, "precision_months_apart": precisions})
    (target / TERMS).write_text(terms(config.network.backbone), encoding="utf-8")
    (target / MODEL_CARD).write_text(card, encoding="utf-8")
    write_manifest(target, hash_files(target))
    if folder is None:
        _publish_card(target)
    return target


def _require_steps(prepared: Path, out: Path, gate: Path) -> None:
    """Name the first missing file and the step that makes it."""
    steps = {
        prepared: "training prepare",
        out / "checkpoint.pt": "training train",
        out / "curves.png": "training train",
        **{
            gate / name: "training.gate evaluate"
            for name in ("gate.onnx", "gate.safetensors", "gate.json", "roc.png")
        },
        out / "robustness.json": "training robustness",
    }
    for path, step in steps.items():
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run python -m inference.{step} first")


def _copy_files(folder: Path, out: Path, gate: Path) -> None:
    copies = {
        GATE_ONNX: gate / "gate.onnx",
        GATE_WEIGHTS: gate / "gate.safetensors",
        GATE_ROC: gate / "roc.png",
        AGREEMENT: out / "agreement.png",
        RELIABILITY: out / "calibration.png",
        CURVES: out / "curves.png",
    }
    for name, path in copies.items():
        shutil.copyfile(path, folder / name)


def _publish_card(folder: Path) -> None:
    """Let the project's documentation show the released model's card: the same text, the same
    pictures."""
    shutil.copyfile(folder / MODEL_CARD, _DOCUMENTS / "model-card.md")
    for name in PICTURES:
        shutil.copyfile(folder / name, name)


def write_models(
    folder: Path, network: BoneAgeNet, calibration: Mapping[str, Any], side: int
) -> None:
    """Weights as safetensors, and the estimator for images of ``side`` pixels as ONNX."""
    save_file(network.state_dict(), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read
    estimator = BoneAgeEstimator(network, **_calibration_arguments(calibration)).eval()
    image, male = torch.zeros(1, 1, side, side, dtype=torch.uint8), torch.zeros(1, 1)
    names = ("image", "male", "mean_months", "sd_months", "saliency")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but the newer exporter needs onnxscript
        torch.onnx.export(
            estimator,
            (image, male),
            str(folder / ONNX),
            input_names=names[:2],
            output_names=names[2:],
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=_OPSET,
            dynamo=False,
        )


def _calibration_arguments(calibration: Mapping[str, Any]) -> dict[str, float]:
    return {name: calibration[name] for name in ("sd_scale", "sd_floor_months")}


def _write_configuration(folder: Path, config: RunConfig, calibration: Mapping[str, Any]) -> None:
    inference = {
        "side": config.side,
        "network_def": {"_target_": "inference.network.BoneAgeNet", **vars(config.network)},
        "estimator": {
            "_target_": "inference.network.BoneAgeEstimator",
            "network": "@network_def",
            **_calibration_arguments(calibration),
        },
        "preprocessing": {"_target_": "inference.transforms.ToNetworkInput", "side": "@side"},
    }
    _write_json(folder / INFERENCE, inference)


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _unsealed(folder: Path, config: RunConfig, evaluation: Mapping[str, Any]) -> Bundle:
    """The network's files before there is a manifest."""
    sha256 = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (INFERENCE, WEIGHTS, ONNX)
    }
    return Bundle(
        folder=folder,
        identity=ModelIdentity(name=config.name, version=config.version, sha256=sha256[WEIGHTS]),
        side=config.side,
        indeterminate_above_months=evaluation["calibration"]["indeterminate_above_months"],
        metadata={},
        sha256=sha256,
    )


def _compare(bundle: Bundle, prepared: Path) -> dict[str, float]:
    """Refuse engines that differ; say how far each reduced precision moves the results, months."""
    radiographs = load_radiographs(prepared)
    chosen = np.flatnonzero(radiographs.validation)[:_COMPARED_IMAGES]
    images, male = radiographs.images[chosen][:, None], radiographs.male[chosen][:, None]
    expected = OnnxEngine(bundle).run(images, male)
    apart: dict[Precision, float] = {}
    for precision in get_args(Precision):
        engine = TorchEngine(bundle, "cpu", precision=precision)
        apart[precision] = _months_apart(engine.run(images, male), expected)
        print(
            f"onnxruntime and torch in {precision} differ by at most {apart[precision]:.6f} months "
            f"on {len(chosen)} images"
        )
    if not apart["fp32"] <= MAX_DISAGREEMENT_MONTHS:
        raise ValueError(f"{bundle.folder}: onnxruntime and torch differ; do not release")
    return {precision: months for precision, months in apart.items() if precision != "fp32"}


def _months_apart(found: NetworkOutput, expected: NetworkOutput) -> float:
    """The largest difference of a mean, an SD or a saliency, all in months."""
    return max(
        float(np.abs(getattr(found, name) - getattr(expected, name)).max())
        for name in ("mean_months", "sd_months", "saliency")
    )
