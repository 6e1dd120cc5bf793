"""Write a trained network as a bundle: a MONAI bundle with an ONNX export and a manifest."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from inference.bundle import (
    DOCUMENTS,
    INFERENCE,
    METADATA,
    ONNX,
    WEIGHTS,
    Bundle,
    hash_files,
    write_manifest,
)
from inference.engines.onnx import OnnxEngine
from inference.engines.torch import TorchEngine
from inference.network import BoneAgeEstimator, BoneAgeNet
from inference.prediction import ModelIdentity
from inference.training.model_card import TERMS, metadata, model_card
from inference.training.prepare import load_radiographs
from inference.training.report import evaluate_checkpoint, load_network
from inference.training.run_config import RunConfig

MAX_DISAGREEMENT_MONTHS = 0.1
_COMPARED_IMAGES = 64
_OPSET = 17


def export(config: RunConfig, prepared: Path, out: Path, folder: Path | None) -> Path:
    """Evaluate the run's checkpoint, write its bundle and return the bundle's folder.

    ``folder`` defaults to ``config/models/<name>-<version>``. The manifest is written last, after
    both engines gave the same months. Raises ``FileExistsError`` when the folder exists (a released
    version does not change) and ``ValueError`` when the engines disagree.
    """
    folder = folder or Path("config/models") / f"{config.name}-{config.version}"
    evaluation = evaluate_checkpoint(config, prepared, out)
    folder.mkdir(parents=True)
    for name in (METADATA, ONNX, DOCUMENTS[1]):
        (folder / name).parent.mkdir()
    network = load_network(config, out / "checkpoint.pt")
    calibration = evaluation["calibration"]
    _write_models(folder, network, calibration, config.side)
    _write_texts(folder, config, evaluation)
    sha256 = hash_files(folder)
    identity = ModelIdentity(name=config.name, version=config.version, sha256=sha256[WEIGHTS])
    _compare(
        Bundle(folder=folder, identity=identity, side=config.side, metadata={}, sha256=sha256),
        prepared,
    )
    write_manifest(folder, sha256)
    return folder


def _write_models(
    folder: Path, network: BoneAgeNet, calibration: Mapping[str, Any], side: int
) -> None:
    save_file(network.state_dict(), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read
    estimator = BoneAgeEstimator(network, **_calibration_arguments(calibration)).eval()
    image, male = torch.zeros(1, 1, side, side, dtype=torch.uint8), torch.zeros(1, 1)
    names = ("image", "male", "mean_months", "sd_months")
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


def _write_texts(folder: Path, config: RunConfig, evaluation: Mapping[str, Any]) -> None:
    inference = {
        "side": config.side,
        "network_def": {"_target_": "inference.network.BoneAgeNet", **vars(config.network)},
        "estimator": {
            "_target_": "inference.network.BoneAgeEstimator",
            "network": "@network_def",
            **_calibration_arguments(evaluation["calibration"]),
        },
        "preprocessing": {"_target_": "inference.transforms.ToNetworkInput", "side": "@side"},
    }
    _write_json(folder / METADATA, metadata(config, evaluation))
    _write_json(folder / INFERENCE, inference)
    (folder / DOCUMENTS[0]).write_text(TERMS, encoding="utf-8")
    (folder / DOCUMENTS[1]).write_text(model_card(config, evaluation), encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _compare(bundle: Bundle, prepared: Path) -> None:
    radiographs = load_radiographs(prepared)
    chosen = np.flatnonzero(radiographs.validation)[:_COMPARED_IMAGES]
    images, male = radiographs.images[chosen][:, None], radiographs.male[chosen][:, None]
    by_onnx = OnnxEngine(bundle).run(images, male)
    by_torch = TorchEngine(bundle, "cpu").run(images, male)
    apart = max(
        float(np.abs(by_onnx.mean_months - by_torch.mean_months).max()),
        float(np.abs(by_onnx.sd_months - by_torch.sd_months).max()),
    )
    if not apart <= MAX_DISAGREEMENT_MONTHS:
        raise ValueError(
            f"{bundle.folder}: onnxruntime and torch differ by {apart:.3f} months; do not release"
        )
    print(f"onnxruntime and torch differ by at most {apart:.6f} months on {len(chosen)} images")
