"""Radiographs for tests: drawn hands, their files in any depth and encoding, and real ones."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders.dicom_files import hand_dataset, write_file

RSNA = Path(__file__).parents[3] / "shared" / "data" / "rsna"

PYDICOM_ENCODERS = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
}
_FINGERS = (
    (-0.30, 0.52, 0.30),
    (-0.17, 0.34, 0.10),
    (0.0, 0.32, 0.05),
    (0.15, 0.34, 0.10),
    (0.36, 0.62, 0.42),
)


def drawn_hand(*, rows: int = 640, columns: int = 512, levels: int = 4096) -> NDArray[np.uint16]:
    """Five fingers, a palm and a forearm with bones: bright on dark, (rows, columns)."""
    y, x = np.mgrid[:rows, :columns]
    y, x = y / rows, x / columns - 0.5
    grey = np.full((rows, columns), 0.05)
    palm = np.hypot((x - 0.02) / 0.2, (y - 0.6) / 0.16) < 1
    limbs = [_limb(x, y, (0.0, 0.6), (dx, top), 0.045) for dx, _, top in _FINGERS]
    limbs.append(_limb(x, y, (0.0, 0.6), (0.0, 1.1), 0.1))
    bones = [_limb(x, y, (0.0, 0.6), (dx, top + 0.02), 0.018) for dx, _, top in _FINGERS]
    bones += [_limb(x, y, (side, 0.78), (side, 1.1), 0.035) for side in (-0.05, 0.05)]
    for shape, brighter in ((palm, 0.3), *((limb, 0.3) for limb in limbs)):
        grey[shape] = 0.05 + brighter
    for bone in bones:
        grey[bone] = 0.6
    texture = np.random.default_rng(7).normal(0.0, 0.05, grey.shape) * (grey > 0.1)
    return np.rint(np.clip(grey + texture, 0, 1) * (levels - 1)).astype(np.uint16)


def _limb(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    begin: tuple[float, float],
    end: tuple[float, float],
    radius: float,
) -> NDArray[np.bool_]:
    (x0, y0), (x1, y1) = begin, end
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
    inside: NDArray[np.bool_] = (
        np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) < radius
    )
    return inside


def radiograph(pixels: NDArray[np.generic], *, bits_stored: int, **values: Any) -> Dataset:
    """A CR whose stored values are ``pixels``: 8 or 16 bits allocated, signed as its dtype."""
    allocated = 8 if bits_stored == 8 else 16
    kind = "i" if pixels.dtype.kind == "i" else "u"
    dataset = hand_dataset(
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        BitsAllocated=allocated,
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
        PixelRepresentation=int(kind == "i"),
        PixelData=pixels.astype(f"<{kind}{allocated // 8}").tobytes(),
    )
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def compressed(source: Path, target: Path, transfer_syntax_uid: UID) -> Path:
    """The same file in another transfer syntax, by pydicom's encoders."""
    dataset = dcmread(source)
    dataset.compress(
        transfer_syntax_uid,
        encoding_plugin=PYDICOM_ENCODERS[transfer_syntax_uid],
        generate_instance_uid=False,
    )
    dataset.save_as(target)
    return target


def converted(source: Path, target: Path, *command: str) -> Path:
    """The same file by a DCMTK tool, such as ``dcmcjpeg +e1``."""
    tool, *options = command
    subprocess.run([f"/usr/bin/{tool}", *options, source, target], check=True)
    return target


def real_radiographs(count: int | None = None) -> list[dict[str, str]]:
    """Rows of ``full.csv`` (image_id, sex, bone_age_months); skips the test without the data."""
    table = RSNA / "full.csv"
    if not table.exists():
        pytest.skip(f"needs the labelled radiographs in {RSNA.relative_to(RSNA.parents[3])}")
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))[:count]


def real_pixels(image_id: str) -> NDArray[np.uint8]:
    """Grey levels of a radiograph at full size, (rows, columns)."""
    with Image.open(RSNA / "full" / f"{image_id}.png") as image:
        return np.asarray(image.convert("L"))


def real_file(folder: Path, image_id: str) -> Path:
    """A real radiograph as a CR of 8 bits; the wrapper is ours."""
    dataset = radiograph(real_pixels(image_id), bits_stored=8)
    return write_file(
        folder / f"{image_id}.dcm", dataset, transfer_syntax_uid=ExplicitVRLittleEndian
    )
