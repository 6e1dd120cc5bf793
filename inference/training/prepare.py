"""Turn the labelled radiographs into one array file and a recorded, seeded split."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from inference.frame import within_frame
from inference.localize import find_hand
from inference.prediction import HandBox
from inference.preprocess import STORED_SIDE, to_network_input, to_stored_size
from inference.quality import is_plausible
from inference.training.run_config import RunConfig

_SPLITS = Path(__file__).parent / "splits"
_WHOLE = HandBox(left=0.0, top=0.0, right=STORED_SIDE, bottom=STORED_SIDE)


@dataclass(frozen=True, kw_only=True)
class Radiographs:
    """Prepared radiographs: ``images`` uint8 (N, S, S), ``male`` float32 (N,), ``months`` float32
    (N,)."""

    image_ids: NDArray[np.int64]
    images: NDArray[np.uint8]
    male: NDArray[np.float32]
    months: NDArray[np.float32]
    validation: NDArray[np.bool_]


def prepare(config: RunConfig, data: Path, out: Path, *, splits: Path = _SPLITS) -> Path:
    """Write ``radiographs-<side>.npz`` and ``split.csv`` below ``out``; return the array file.

    ``data`` holds ``labels.csv`` (image_id, sex, bone_age_months) and ``rsna-299.zip``. Each image
    loses a plain frame and is cut to its hand; where no plausible hand is found it stays whole.
    Images that ``full.csv`` names go to the validation split, so that tests at full size never see
    a training image. Raises ``FileNotFoundError`` when a file is missing and ``ValueError`` when
    the split is not the one recorded for this seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"radiographs-{config.side}.npz"
    rows = _read_csv(data / "labels.csv")
    reserved = {row["image_id"] for row in _read_csv(data / "full.csv")}
    validation = _split(rows, reserved, config)
    _record_split(out / "split.csv", rows, validation)
    _record_split(splits / f"seed-{config.seed}.csv", rows, validation)
    images = np.empty((len(rows), config.side, config.side), dtype=np.uint8)
    with zipfile.ZipFile(data / "rsna-299.zip") as archive:
        for index, row in enumerate(track(rows, description="preparing")):
            stored = stored_radiograph(archive, f"{row['image_id']}.jpg")
            hand = find_hand(stored)
            box = hand.box if hand is not None and is_plausible(hand) else _WHOLE
            images[index] = to_network_input(stored, box, config.side)
    np.savez(
        target,
        image_ids=np.array([int(row["image_id"]) for row in rows]),
        images=images,
        male=np.array([row["sex"] == "M" for row in rows], dtype=np.float32),
        months=np.array([row["bone_age_months"] for row in rows], dtype=np.float32),
        validation=validation,
    )
    return target


def load_radiographs(path: Path) -> Radiographs:
    """Read the array file that :func:`prepare` wrote. Raises ``FileNotFoundError`` when it is
    missing."""
    with np.load(path, allow_pickle=False) as stored:
        return Radiographs(**{name: stored[name] for name in stored.files})


def stored_radiograph(archive: zipfile.ZipFile, name: str) -> NDArray[np.float32]:
    """One radiograph of the archive without a plain frame, float32 (299, 299)."""
    with Image.open(io.BytesIO(archive.read(name))) as image:
        grey = np.asarray(image.convert("L"))
    return to_stored_size(grey[within_frame(grey)])


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _split(rows: list[dict[str, str]], reserved: set[str], config: RunConfig) -> NDArray[np.bool_]:
    chosen = np.array([row["image_id"] in reserved for row in rows])
    free = np.flatnonzero(~chosen)
    order = np.random.default_rng(config.seed).permutation(free)
    chosen[order[: config.validation_images - int(chosen.sum())]] = True
    return chosen


def _record_split(path: Path, rows: list[dict[str, str]], validation: NDArray[np.bool_]) -> None:
    """Write the split where none is recorded; refuse another one."""
    split = [
        {"image_id": row["image_id"], "split": "validation" if held_back else "train"}
        for row, held_back in zip(rows, validation, strict=True)
    ]
    if path.exists():
        if _read_csv(path) != split:
            raise ValueError(f"{path} records another split: change the seed, not the split")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image_id", "split"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(split)
