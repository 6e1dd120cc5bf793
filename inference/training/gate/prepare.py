"""Gather the pictures that views are made from: radiographs, drawings, other images, patterns."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from inference.localize import find_hand
from inference.phantom.exams import phantom_exams
from inference.phantom.radiograph import draw
from inference.preprocess import STORED_SIDE, to_stored_size
from inference.quality import is_plausible
from inference.training.gate.config import GateConfig
from inference.training.gate.drawings import DRAWN
from inference.training.gate.patterns import PATTERNS
from inference.training.prepare import stored_radiograph

PICTURES = "pictures.npz"
HANDS = ("rsna", "phantom", "drawn_hand")
"""Groups of pictures that show an upright left hand."""
BODY_PARTS = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "HeadCT")
"""Groups of the 64-pixel images; its hands are RSNA's and stay out."""
_SPLITS = Path(__file__).parents[1] / "splits"
_VALIDATION_SHARE = 0.25
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """``images`` uint8 (N, S, S), upright with bright bones; ``boxes`` of the hands (N, 4): left,
    top, right, bottom over the side, the whole image where there is none; ``groups`` and ``parts``
    (train, calibration, validation) as text (N,); ``names`` of the files, or empty."""

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    groups: NDArray[np.str_]
    parts: NDArray[np.str_]
    names: NDArray[np.str_]

    def chosen(self, part: str, groups: tuple[str, ...]) -> NDArray[np.int64]:
        """Indices of the pictures of some groups in one part."""
        return np.flatnonzero((self.parts == part) & np.isin(self.groups, groups))


def prepare(config: GateConfig, data: Path, out: Path) -> Path:
    """Write ``pictures.npz`` below ``out`` and return its path.

    ``data`` holds ``rsna/rsna-299.zip`` and ``not-hand/medical-mnist-64.zip``. Raises
    ``FileNotFoundError`` when one is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        *_radiographs(config, data / "rsna" / "rsna-299.zip"),
        *_phantoms(config),
        *_other_images(config, data / "not-hand" / "medical-mnist-64.zip"),
        *_drawings(config),
    ]
    images, boxes, groups, parts, names = zip(*rows, strict=True)
    target = out / PICTURES
    np.savez(
        target,
        images=np.stack(images),
        boxes=np.array(boxes, dtype=np.float32),
        groups=np.array(groups),
        parts=np.array(parts),
        names=np.array(names),
    )
    return target


def load_pictures(path: Path) -> Pictures:
    """Read the file of :func:`prepare`. Raises ``FileNotFoundError`` when it is missing."""
    with np.load(path, allow_pickle=False) as stored:
        return Pictures(**{name: stored[name] for name in stored.files})


def _radiographs(config: GateConfig, path: Path) -> Iterator[tuple[object, ...]]:
    with (_SPLITS / f"seed-{config.seed}.csv").open(newline="", encoding="utf-8") as file:
        parts = {row["image_id"]: row["split"] for row in csv.DictReader(file)}
    with zipfile.ZipFile(path) as archive:
        present = {Path(name).stem for name in archive.namelist()}
        training = [name for name in parts if parts[name] == "train" and name in present]
        rng = np.random.default_rng(config.seed)
        chosen = rng.choice(training, config.calibration_images, replace=False)
        parts |= dict.fromkeys(chosen.tolist(), "calibration")
        for name in track(sorted(present & set(parts), key=int), description="radiographs"):
            stored = stored_radiograph(archive, f"{name}.jpg")
            yield _small(stored, config), _box(stored), "rsna", parts[name], name


def _phantoms(config: GateConfig) -> Iterator[tuple[object, ...]]:
    exams = phantom_exams(config.phantoms, config.seed)
    for number, exam in enumerate(track(exams, description="phantoms")):
        drawn = draw(
            bone_age_months=exam.bone_age_months, sex=exam.sex, seed=exam.seed, rows=400,
            columns=300,
        )  # fmt: skip
        stored = to_stored_size(drawn.pixels)
        yield _small(stored, config), _box(stored), "phantom", _part(number), ""


def _other_images(config: GateConfig, path: Path) -> Iterator[tuple[object, ...]]:
    with zipfile.ZipFile(path) as archive:
        for group in BODY_PARTS:
            names = sorted(name for name in archive.namelist() if name.startswith(f"{group}/"))
            for number, name in enumerate(names):
                stored = stored_radiograph(archive, name)
                yield _small(stored, config), _WHOLE, group, _part(number), name


def _drawings(config: GateConfig) -> Iterator[tuple[object, ...]]:
    for place, (group, picture) in enumerate({**DRAWN, **PATTERNS}.items()):
        for number in track(range(config.drawings), description=group):
            rng = np.random.default_rng([config.seed, place, number])
            grey = picture(config.source_side, rng)
            yield _small(grey, config), _WHOLE, group, _part(number), ""


def _part(number: int) -> str:
    return "validation" if number % round(1 / _VALIDATION_SHARE) == 0 else "train"


def _small(grey: NDArray[np.float32], config: GateConfig) -> NDArray[np.uint8]:
    """Stretched to 0..255 with almost nothing clipped, (S, S)."""
    low, high = np.percentile(grey, (0.1, 99.9))
    scaled = np.clip((grey - low) / max(high - low, 1e-6), 0, 1) * 255
    image = Image.fromarray(scaled.astype(np.float32))
    size = (config.source_side, config.source_side)
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return np.asarray(np.rint(small), dtype=np.uint8)


def _box(stored: NDArray[np.float32]) -> tuple[float, ...]:
    hand = find_hand(stored)
    if hand is None or not is_plausible(hand):
        return _WHOLE
    box = hand.box
    return tuple(edge / STORED_SIDE for edge in (box.left, box.top, box.right, box.bottom))
