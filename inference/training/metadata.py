"""The machine-readable description of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from inference.training.model_card import CITATION, DATA, DATA_PAGE, INTENDED_USE
from inference.training.run_config import RunConfig


def metadata(
    config: RunConfig,
    evaluation: Mapping[str, Any],
    robustness: Mapping[str, Any],
    gate: Mapping[str, Any],
) -> dict[str, Any]:
    """``configs/metadata.json`` after MONAI's bundle specification, with our ``side``,
    ``calibration``, ``evaluation``, ``robustness`` and ``gate``."""
    months = {"type": "value", "format": "months", "num_channels": 1, "dtype": "float32"}
    places = config.side // 32
    return {
        "name": config.name,
        "version": config.version,
        "changelog": {config.version: f"exported {datetime.now(UTC):%Y-%m-%d}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            name: version(name) for name in ("onnxruntime", "pillow", "pydicom", "safetensors")
        },
        "task": "Bone age from a hand radiograph",
        "description": f"EfficientNet-{config.network.backbone.capitalize()} with a sex input "
        "and a distribution over months",
        "authors": "boneage-dicom-node contributors",
        "copyright": "See LICENSE: research and non-commercial use only",
        "data_source": _one_line(f"{DATA}, {DATA_PAGE}. {CITATION}"),
        "intended_use": _one_line(INTENDED_USE),
        "side": config.side,
        "calibration": evaluation["calibration"],
        "evaluation": {key: value for key, value in evaluation.items() if key != "calibration"},
        "robustness": dict(robustness),
        "gate": {key: value for key, value in gate.items() if key != "odd_as_stored"},
        "network_data_format": {
            "inputs": {"image": _image_format(config.side), "male": _male_format()},
            "outputs": {
                "mean_months": months,
                "sd_months": months,
                "saliency": {**months, "spatial_shape": [places, places]},
            },
        },
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _image_format(side: int) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "CR",
        "num_channels": 1,
        "spatial_shape": [side, side],
        "dtype": "uint8",
        "value_range": [0, 255],
        "is_patch_data": False,
        "channel_def": {"0": "grey levels, bright bones"},
    }


def _male_format() -> dict[str, Any]:
    return {
        "type": "value",
        "format": "1 male, 0 female",
        "num_channels": 1,
        "dtype": "float32",
        "value_range": [0, 1],
    }
