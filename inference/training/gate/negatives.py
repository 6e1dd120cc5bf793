"""Real images of other parts and modalities that come with pydicom and pydicom-data."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data.data_manager import DATA_ROOT, external_data_sources

from inference.frame import within_frame
from inference.preprocess import to_stored_size

_MIN_SIDE = 32


def pydicom_images() -> dict[str, NDArray[np.float32]]:
    """First frame of every readable file by its name, float32 (299, 299), one file per content:
    radiographs of chest and lower leg, CT, MR, ultrasound, scintigraphy and test patterns."""
    images: dict[str, NDArray[np.float32]] = {}
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many of these files break a rule on purpose
        for path in _files():
            grey = _grey(path)
            if grey is None:
                continue
            stored = to_stored_size(grey[within_frame(grey)])
            low, high = np.percentile(stored, (2, 98))
            if not high > low:
                continue
            coarse = np.clip((stored - low) / (high - low), 0, 1)[::8, ::8]
            content = hashlib.sha256(np.rint(coarse * 8).astype(np.uint8).tobytes()).digest()
            if content not in seen:
                seen.add(content)
                images[path.name] = stored
    return images


def _files() -> list[Path]:
    """Those that are installed; pydicom's own search would download the others."""
    folders = [Path(DATA_ROOT) / "test_files"]
    folders += [source.data_path for source in external_data_sources().values()]
    return sorted((path for folder in folders for path in folder.glob("*.dcm")), key=_name)


def _name(path: Path) -> str:
    return path.name


def _grey(path: Path) -> NDArray[np.float32] | None:
    try:
        dataset = dcmread(path)
        pixels = dataset.pixel_array
    except Exception:  # noqa: BLE001 - broken and foreign files among them raise anything
        return None
    return _first_frame(dataset, pixels)


def _first_frame(dataset: Dataset, pixels: NDArray[np.generic]) -> NDArray[np.float32] | None:
    grey = pixels.astype(np.float32)
    if dataset.SamplesPerPixel == 3:
        grey = grey.mean(axis=-1)
    if grey.ndim == 3:
        grey = grey[0]
    if grey.ndim != 2 or min(grey.shape) < _MIN_SIDE:
        return None
    return grey.max() - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey
