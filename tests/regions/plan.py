"""Who takes part in the region map, and what is sent when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from inference.phantom.dicom import to_dataset
from inference.phantom.maturation import Sex
from inference.phantom.radiograph import Radiograph, draw

ROWS, COLUMNS = 640, 480
_HANDS: tuple[tuple[float, Sex], ...] = (
    (155.0, "M"),
    (32.0, "F"),
    (80.0, "M"),
    (162.0, "F"),
    (21.0, "M"),
)
"""Bone age in months and sex of the hands that are drawn; each exam has one of them under noise of
its own. The model doubts the third."""
_SEEDS = (0, 1, 5, 3, 4)
_STUDY_DATE = date(2026, 3, 1)
_DAYS_A_MONTH = 30.44
_NOISE = 12
_LATER_SECONDS = 4.0
"""So long after its first sending an image is sent again."""

Kind = Literal["hand", "no sex", "no hand", "chest"]

_KINDS: tuple[Kind, ...] = ("hand", "no sex", "hand", "hand", "chest", "hand", "no hand", "hand")
_SENT_AGAIN, _SENT_BY_A_STRANGER = 2, 3
"""Of every four images these are."""
STRANGER = "STRANGER"
"""AE title that no node knows."""


@dataclass(frozen=True, kw_only=True)
class Institution:
    """A customer, by the AE title that it sends with."""

    institution_id: str
    ae_title: str


@dataclass(frozen=True, kw_only=True)
class Region:
    """A node with its institutions and its PACS. ``balanced``: senders reach it through HAProxy."""

    name: str
    institutions: tuple[Institution, ...]
    pacs: Literal["Orthanc", "storescp"] = "storescp"
    balanced: bool = False

    @property
    def node(self) -> str:
        """The node's name."""
        return f"{self.name.lower()}-1"


def _two_institutions(region: str) -> tuple[Institution, ...]:
    return tuple(
        Institution(
            institution_id=f"{region.lower()}-{kind}", ae_title=f"{region}_{kind.upper()}_DX"
        )
        for kind in ("hospital", "clinic")
    )


REGIONS = (
    Region(name="SP", institutions=_two_institutions("SP"), balanced=True),
    Region(name="RJ", institutions=_two_institutions("RJ"), pacs="Orthanc"),
    Region(name="PE", institutions=_two_institutions("PE")),
    Region(name="BA", institutions=_two_institutions("BA")),
)


@dataclass(frozen=True, kw_only=True)
class Sending:
    """One image, to be sent once. ``at_seconds``: since the traffic began. ``institution_id``: ""
    for a stranger."""

    at_seconds: float
    region: str
    institution_id: str
    ae_title: str
    sop_instance_uid: str
    path: Path


def write_sendings(folder: Path, *, exams: int, seconds: float) -> list[Sending]:
    """Write ``exams`` images for each region below ``folder`` and return all sendings, spread
    evenly over the time: among them images that are sent twice, and those of a stranger."""
    drawn = [
        draw(bone_age_months=months, sex=sex, seed=seed, rows=ROWS, columns=COLUMNS)
        for seed, (months, sex) in zip(_SEEDS, _HANDS, strict=True)
    ]
    sendings = []
    for place, region in enumerate(REGIONS):
        (folder / region.name).mkdir(parents=True)
        for number in range(exams):
            hand = number % len(_HANDS)
            dataset = _image(
                drawn[hand],
                *_HANDS[hand],
                kind=_KINDS[number % len(_KINDS)],
                seed=100_000 * (place + 1) + number,
            )
            path = folder / region.name / f"{number:05d}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            at_seconds = seconds * (number + place / len(REGIONS)) / exams
            uid = str(dataset.SOPInstanceUID)
            sendings += _sendings_of(region, number, path, uid, at_seconds)
    return sendings


def _sendings_of(
    region: Region, number: int, path: Path, uid: str, at_seconds: float
) -> list[Sending]:
    institution = region.institutions[number // 2 % len(region.institutions)]

    def sending(after: float, institution_id: str, ae_title: str) -> Sending:
        return Sending(
            at_seconds=at_seconds + after,
            region=region.name,
            institution_id=institution_id,
            ae_title=ae_title,
            sop_instance_uid=uid,
            path=path,
        )

    made = [sending(0, institution.institution_id, institution.ae_title)]
    if number % 4 == _SENT_AGAIN:
        made.append(sending(_LATER_SECONDS, institution.institution_id, institution.ae_title))
    if number % 4 == _SENT_BY_A_STRANGER:
        made.append(sending(0, "", STRANGER))
    return made


def _image(
    drawn: Radiograph, bone_age_months: float, sex: Sex, *, kind: Kind, seed: int
) -> Dataset:
    """An exam of its own: other pixels than any other, so that the network has to look at each."""
    chance = np.random.default_rng(seed)
    pixels = _no_hand(chance) if kind == "no hand" else drawn.pixels
    noisy = pixels.astype(np.int32) + chance.integers(-_NOISE, _NOISE, pixels.shape)
    dataset = to_dataset(
        np.clip(noisy, 0, 4095).astype(np.uint16),
        sex=sex,
        birth_date=_STUDY_DATE - timedelta(days=round(bone_age_months * _DAYS_A_MONTH)),
        study_date=_STUDY_DATE,
        pixel_spacing_mm=drawn.pixel_spacing_mm,
        seed=seed,
        modality="CR",
    )
    if kind == "no sex":
        dataset.PatientSex = ""
    if kind == "chest":
        dataset.BodyPartExamined = "CHEST"
        dataset.ProtocolName = dataset.StudyDescription = dataset.SeriesDescription = "CHEST PA"
    return dataset


def _no_hand(chance: np.random.Generator) -> NDArray[np.uint16]:
    """A bright disc."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    centre_y, centre_x = chance.uniform(0.4, 0.6, 2) * (ROWS, COLUMNS)
    distance = np.hypot(y - centre_y, x - centre_x)
    return np.where(distance < 0.3 * COLUMNS, 2500, 300).astype(np.uint16)
