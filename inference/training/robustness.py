"""How far results move when a radiograph is turned, mirrored, inverted, framed or degraded.

The winner of the RSNA 2017 challenge failed on such changes (Santomartino SM et al., Radiology:
Artificial Intelligence 2024;6(3):e230240).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.progress import track

from inference.canonical import CanonicalHand, find_canonical_hand
from inference.gate import Gate
from inference.network import BoneAgeNet
from inference.prediction import Rejection
from inference.preprocess import to_radiograph
from inference.training.evaluate import predict_array
from inference.training.prepare import load_radiographs
from inference.training.run_config import RunConfig

MAX_MEAN_SHIFT_MONTHS = 3.0
"""A mean absolute shift that the model card calls too far."""
_IMAGES = 200
_BORDER_SHARE = 0.15
_BLUR_SD_PIXELS = 1.5

Grey = NDArray[np.uint8]


def _scaled(factor: float, offset: float) -> Callable[[Grey], Grey]:
    def change(grey: Grey) -> Grey:
        moved = (grey.astype(np.float32) - 128) * factor + 128 + offset
        changed: Grey = np.clip(moved, 0, 255).astype(np.uint8)
        return changed

    return change


def _jpeg(quality: int) -> Callable[[Grey], Grey]:
    def change(grey: Grey) -> Grey:
        coded = io.BytesIO()
        Image.fromarray(grey).save(coded, "JPEG", quality=quality)
        with Image.open(coded) as image:
            decoded: Grey = np.asarray(image, dtype=np.uint8)
        return decoded

    return change


def _blurred(grey: Grey) -> Grey:
    blurred = Image.fromarray(grey).filter(ImageFilter.GaussianBlur(_BLUR_SD_PIXELS))
    pixels: Grey = np.asarray(blurred, dtype=np.uint8)
    return pixels


def _framed(level: int) -> Callable[[Grey], Grey]:
    def change(grey: Grey) -> Grey:
        width = round(_BORDER_SHARE * grey.shape[0])
        return np.pad(grey, width, constant_values=level)

    return change


CHANGES: dict[str, Callable[[Grey], Grey]] = {
    "as stored": lambda grey: grey,
    "turned by 90°": lambda grey: np.rot90(grey, 1),
    "turned by 180°": lambda grey: np.rot90(grey, 2),
    "turned by 270°": lambda grey: np.rot90(grey, 3),
    "mirrored": np.fliplr,
    "inverted": lambda grey: 255 - grey,
    "inverted and turned by 90°": lambda grey: np.rot90(255 - grey),
    "brighter (+40 of 255)": _scaled(1.0, 40.0),
    "darker (-40 of 255)": _scaled(1.0, -40.0),
    "contrast x 0.6": _scaled(0.6, 0.0),
    "contrast x 1.4": _scaled(1.4, 0.0),
    f"blur, SD {_BLUR_SD_PIXELS} pixels of 299": _blurred,
    "JPEG quality 75": _jpeg(75),
    "JPEG quality 20": _jpeg(20),
    "black border, 15 % on each side": _framed(0),
    "white border, 15 % on each side": _framed(255),
}
"""Name of each change and what it does to a stored radiograph, uint8 (299, 299)."""


def robustness(
    config: RunConfig, data: Path, prepared: Path, out: Path, *, network: BoneAgeNet, gate: Gate
) -> dict[str, Any]:
    """Write ``robustness.json`` below ``out``: for each change the share refused, the
    mean absolute and the mean shift in months and the MAE.

    Measured on held-back radiographs, with the whole way through gate, hand box and network; the
    shift is that from the result as stored, of images that are assessed both ways.
    """
    radiographs = load_radiographs(prepared)
    held_back = np.flatnonzero(radiographs.validation)
    chosen = np.random.default_rng(config.seed).permutation(held_back)[:_IMAGES]
    stored = list(_read(data, radiographs.image_ids[chosen]))
    male, labels = radiographs.male[chosen], radiographs.months[chosen]
    rows: dict[str, dict[str, Any]] = {}
    baseline = np.full(len(chosen), np.nan)
    for name, change in track(CHANGES.items(), description="changing radiographs"):
        hands = [
            find_canonical_hand(to_radiograph(change(grey)), gate, config.side) for grey in stored
        ]
        months = _months(network, hands, male)
        if not rows:
            baseline = months
        rows[name] = _row(hands, months, baseline, labels)
    result = {"images": len(chosen), "changes": rows}
    (out / "robustness.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _read(data: Path, image_ids: NDArray[np.int64]) -> Iterator[Grey]:
    with zipfile.ZipFile(data / "rsna-299.zip") as archive:
        for image_id in image_ids:
            with Image.open(io.BytesIO(archive.read(f"{image_id}.jpg"))) as image:
                yield np.asarray(image.convert("L"))


def _months(
    network: BoneAgeNet, hands: list[CanonicalHand | Rejection], male: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Bone age in months, (N,); NaN where refused."""
    found = [index for index, hand in enumerate(hands) if isinstance(hand, CanonicalHand)]
    months = np.full(len(hands), np.nan)
    if found:
        images = np.stack([hand.image for hand in hands if isinstance(hand, CanonicalHand)])
        months[found], _ = predict_array(network, images, male[found], torch.device("cpu"))
    return months


def _row(
    hands: list[CanonicalHand | Rejection],
    months: NDArray[np.float64],
    baseline: NDArray[np.float64],
    labels: NDArray[np.float32],
) -> dict[str, Any]:
    refused = np.isnan(months)
    shift = (months - baseline)[~refused & ~np.isnan(baseline)]
    return {
        "refused": round(float(refused.mean()), 4),
        "mean_absolute_shift_months": round(float(np.abs(shift).mean()), 2),
        "mean_shift_months": round(float(shift.mean()), 2),
        "mae_months": round(float(np.abs(months - labels)[~refused].mean()), 2),
    }
