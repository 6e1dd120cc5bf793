"""Radiographs that are ready to send: drawn once, then copied as exams of other patients."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import inference
from inference.phantom.dicom import to_dataset
from inference.phantom.exams import PhantomExam, phantom_exams
from inference.phantom.exposure import MAX_GREY
from inference.phantom.radiograph import draw

ROWS, COLUMNS = 1000, 800
"""1.6 MB."""
DRAWN = 16
"""Hands that are drawn; others are these, exposed differently."""
_KEPT = Path(inference.__file__).parent.parent / "build" / "load" / "drawn"
_KINDS = {"study": 1, "series": 2, "instance": 3}
_SPOT = 12
_BRIGHTER = 120


def uid(kind: str, run: int, number: int) -> str:
    """UIDs of one length, so that one replaces another in place."""
    return f"2.25.{_KINDS[kind]}{run:020d}{number:018d}"


def patient_id(number: int) -> str:
    """Patients of the load, 16 characters."""
    return f"LOAD{number:012d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """One set of pixels as a data set in Explicit VR Little Endian, identity to be filled in."""

    number: int
    sop_class_uid: str
    template: bytes
    shape: tuple[int, int]

    def exam(self, run: int, number: int, *, as_drawn: bool) -> bytearray:
        """The data set of an exam of its own. Unless ``as_drawn`` a spot on the hand is a little
        brighter, at a place of its own: no answer about it can be remembered."""
        content = bytearray(self.template)
        for kind in _KINDS:
            _replace(content, uid(kind, 0, 0), uid(kind, run, number))
        _replace(content, patient_id(0), patient_id(number))
        if not as_drawn:
            _brighten(self._pixels(content), number)
        return content

    def _pixels(self, content: bytearray) -> NDArray[np.uint16]:
        rows, columns = self.shape
        offset = len(content) - 2 * rows * columns
        return np.frombuffer(content, "<u2", offset=offset).reshape(rows, columns)


def films(count: int, *, rows: int = ROWS, columns: int = COLUMNS) -> list[Film]:
    """``count`` different sets of pixels. What is drawn is kept below `build/load/drawn/`."""
    drawn = _drawn(min(count, DRAWN), rows, columns)
    return [_film(n, *drawn[n % len(drawn)], n // len(drawn)) for n in range(count)]


def _drawn(count: int, rows: int, columns: int) -> list[tuple[PhantomExam, NDArray[np.uint16]]]:
    _KEPT.mkdir(parents=True, exist_ok=True)
    exams = phantom_exams(count)
    paths = [_KEPT / f"{count}-{rows}x{columns}-{exam.seed}.npy" for exam in exams]
    missing = [n for n, path in enumerate(paths) if not path.exists()]
    if missing:
        with ProcessPoolExecutor(2) as pool:
            for n, pixels in zip(
                missing,
                pool.map(_draw, [exams[n] for n in missing], [rows] * count, [columns] * count),
                strict=True,
            ):
                np.save(paths[n], pixels)
    return [(exam, np.load(path)) for exam, path in zip(exams, paths, strict=True)]


def _draw(exam: PhantomExam, rows: int, columns: int) -> NDArray[np.uint16]:
    return draw(
        bone_age_months=exam.bone_age_months,
        sex=exam.sex,
        seed=exam.seed,
        rows=rows,
        columns=columns,
    ).pixels


def _film(number: int, exam: PhantomExam, drawn: NDArray[np.uint16], variant: int) -> Film:
    """``variant``: 0 as it is drawn, then darker and darker by half a percent."""
    pixels = (drawn * (1 - 0.005 * variant)).astype(np.uint16)
    dataset = to_dataset(
        pixels,
        sex=exam.sex,
        birth_date=date(2026, 3, 1).replace(year=2026 - exam.chronological_age_months // 12),
        study_date=date(2026, 3, 1),
        pixel_spacing_mm=0.15,
        seed=exam.seed,
        modality="CR" if number % 2 else "DX",
        patient_id=patient_id(0),
    )
    dataset.StudyInstanceUID = uid("study", 0, 0)
    dataset.SeriesInstanceUID = uid("series", 0, 0)
    dataset.SOPInstanceUID = uid("instance", 0, 0)
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    content = written.getvalue()
    meta_bytes = int.from_bytes(content[140:144], "little")
    return Film(
        number=number,
        sop_class_uid=str(dataset.SOPClassUID),
        template=content[144 + meta_bytes :],
        shape=(pixels.shape[0], pixels.shape[1]),
    )


def _replace(content: bytearray, old: str, new: str) -> None:
    at = content.index(old.encode())
    content[at : at + len(new)] = new.encode()


def _brighten(pixels: NDArray[np.uint16], number: int) -> None:
    """In the middle of the image, where the hand is."""
    rows, columns = pixels.shape
    chance = random.Random(number)
    top = chance.randrange(int(rows * 0.3), int(rows * 0.7))
    left = chance.randrange(int(columns * 0.35), int(columns * 0.65))
    spot = pixels[top : top + _SPOT, left : left + _SPOT]
    np.minimum(spot + np.uint16(_BRIGHTER), MAX_GREY, out=spot)


def cycle(some: list[Film]) -> Iterator[Film]:
    """All of them, again and again."""
    while True:
        yield from some
