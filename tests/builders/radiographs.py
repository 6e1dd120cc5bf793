"""Folders of small synthetic hand radiographs as DICOM files: quick to make, each its own exam."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pydicom import Dataset

from inference.phantom.dicom import to_dataset
from inference.phantom.maturation import Sex
from tests.builders.exams import drawn_radiograph

_HANDS: tuple[tuple[float, Sex], ...] = ((170.0, "M"), (40.0, "F"), (60.0, "M"))
_ROWS, _COLUMNS = 640, 480


def radiograph(number: int, **values: object) -> Dataset:
    """The ``number``-th radiograph; ``values`` are set by keyword on top, None deletes."""
    bone_age_months, sex = _HANDS[number % len(_HANDS)]
    drawn = drawn_radiograph(bone_age_months=bone_age_months, sex=sex, rows=_ROWS, columns=_COLUMNS)
    dataset = to_dataset(
        drawn.pixels,
        sex=sex,
        birth_date=date(2015, 1, 1 + number % 28),
        study_date=date(2026, 3, 1),
        pixel_spacing_mm=drawn.pixel_spacing_mm,
        seed=number,
    )
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def radiograph_files(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """Write ``count`` radiographs below ``folder``, from the ``first``-th on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"hand-{number:04d}.dcm" for number in range(count)]
    for number, path in enumerate(paths, first):
        radiograph(number).save_as(path, enforce_file_format=True)
    return paths
