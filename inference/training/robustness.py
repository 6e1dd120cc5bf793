"""How far results move when a radiograph is turned, mirrored, inverted, framed or degraded.

The winner of the RSNA 2017 challenge failed on such changes (Santomartino SM et al., Radiology:
Artificial Intelligence 2024;6(3):e230240).
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
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
from inference.preprocess import STORED_SIDE, to_radiograph
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
    sd = _BLUR_SD_PIXELS * max(grey.shape) / STORED_SIDE
    blurred = Image.fromarray(grey).filter(ImageFilter.GaussianBlur(sd))
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
"""Name of each change and what it does to a radiograph, uint8 (Rows, Columns)."""


Assess = Callable[[Sequence[Grey], NDArray[np.bool_]], NDArray[np.float64]]
"""Bone age in months, (N,), of N radiographs and whether each is male; NaN where refused."""


def robustness(
    config: RunConfig, data: Path, prepared: Path, out: Path, *, network: BoneAgeNet, gate: Gate
) -> dict[str, Any]:
    """Write ``robustness.json`` below ``out``: what :func:`measure` finds on held-back radiographs
    as stored, 299 x 299, and at full size, by the whole way through gate, hand box and network.
    """
    radiographs = load_radiographs(prepared)
    held_back = np.flatnonzero(radiographs.validation)
    chosen = np.random.default_rng(config.seed).permutation(held_back)[:_IMAGES]
    stored = list(_read(data, radiographs.image_ids[chosen]))

    def assess(greys: Sequence[Grey], male: NDArray[np.bool_]) -> NDArray[np.float64]:
        hands = [find_canonical_hand(to_radiograph(grey), gate, config.side) for grey in greys]
        return _months(network, hands, male.astype(np.float32))

    male, labels = radiographs.male[chosen] > 0, radiographs.months[chosen]
    result = measure(stored, male, labels, assess)
    result["full_size"] = measure(*full_size(data), assess)
    (out / "robustness.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def measure(
    radiographs: Sequence[Grey],
    male: NDArray[np.bool_],
    labels: NDArray[np.float32],
    assess: Assess,
) -> dict[str, Any]:
    """For each change the share refused, the mean absolute and the mean shift in months and the
    MAE. The shift is that from the result as stored, of radiographs that are assessed both ways.
    """
    rows: dict[str, dict[str, Any]] = {}
    baseline = np.full(len(radiographs), np.nan)
    for name, change in track(CHANGES.items(), description="changing radiographs"):
        months = assess([change(grey) for grey in radiographs], male)
        if not rows:
            baseline = months
        rows[name] = _row(months, baseline, labels)
    return {"images": len(radiographs), "changes": rows}


def full_size(data: Path) -> tuple[list[Grey], NDArray[np.bool_], NDArray[np.float32]]:
    """The radiographs of ``full.csv``, uint8 (Rows, Columns) each, whether they are male, and their
    labels in months. No network has seen them in training (:mod:`inference.training.prepare`)."""
    with (data / "full.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    radiographs = []
    for row in rows:
        with Image.open(data / "full" / f"{row['image_id']}.png") as image:
            radiographs.append(np.asarray(image.convert("L")))
    male = np.array([row["sex"] == "M" for row in rows])
    return radiographs, male, np.array([row["bone_age_months"] for row in rows], dtype=np.float32)


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
    months: NDArray[np.float64], baseline: NDArray[np.float64], labels: NDArray[np.float32]
) -> dict[str, Any]:
    refused = np.isnan(months)
    shift = (months - baseline)[~refused & ~np.isnan(baseline)]
    return {
        "refused": round(float(refused.mean()), 4),
        "mean_absolute_shift_months": round(float(np.abs(shift).mean()), 2),
        "mean_shift_months": round(float(shift.mean()), 2),
        "mae_months": round(float(np.abs(months - labels)[~refused].mean()), 2),
    }
