"""Which received instances the node assesses, from the header alone: rules in order, the first that
objects decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.assessment import Note, age_in_months
from dicom_node.domain.exam import Header, Laterality, Sex

CR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

PRODUCT_NAME = "boneage-node"
"""Manufacturer's Model Name (0008,1090) in everything the node makes."""

MAX_AGE_MONTHS = 228.0
MIN_SIDE_PIXELS = 256
MAX_PIXELS = 100_000_000
_MAX_PLAUSIBLE_AGE_MONTHS = 130 * 12
_MAX_AGE_DISAGREEMENT_MONTHS = 12.0


class Reason(StrEnum):
    """Why an instance gets no bone age; stable codes that an operator can count."""

    AGE_IMPLAUSIBLE = "age_implausible"
    AGE_OUT_OF_RANGE = "age_out_of_range"
    BIRTH_AFTER_STUDY = "birth_after_study"
    BURNED_IN_ANNOTATION = "burned_in_annotation"
    COLOUR_IMAGE = "colour_image"
    DERIVED_SECONDARY = "derived_secondary"
    FOR_PROCESSING = "for_processing"
    HAND_INCOMPLETE = "hand_incomplete"
    IMAGE_BLANK = "image_blank"
    IMAGE_SATURATED = "image_saturated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    INDETERMINATE = "indeterminate"
    MULTI_FRAME = "multi_frame"
    NO_HAND_FOUND = "no_hand_found"
    NO_PIXEL_DATA = "no_pixel_data"
    OTHER_BODY_PART = "other_body_part"
    OTHER_MODALITY = "other_modality"
    OTHER_SOP_CLASS = "other_sop_class"
    OWN_RESULT = "own_result"
    PIXELS_UNREADABLE = "pixels_unreadable"
    SECONDARY_CAPTURE = "secondary_capture"
    SEVERAL_HANDS = "several_hands"
    SEX_MISSING = "sex_missing"
    SEX_NOT_SUPPORTED = "sex_not_supported"
    VIEW_NOT_FRONTAL = "view_not_frontal"


class Disposition(StrEnum):
    """What follows from ineligibility."""

    IGNORE = "ignore"
    """Not ours: recorded, nothing is reported."""
    REJECT = "reject"
    """Ours but not assessable: a report says why, if the institution wants one."""


@dataclass(frozen=True, kw_only=True)
class Eligible:
    """The image may be assessed. Age in months, None without birth or study date."""

    sex: Sex
    chronological_age_months: float | None
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True)
class Ineligible:
    """No bone age for this instance, because."""

    reason: Reason
    disposition: Disposition


_IMAGE_CLASSES = (CR_IMAGE_STORAGE, DX_FOR_PRESENTATION)
_HAND_WORDS = re.compile(
    r"\b(HANDS?|WRISTS?|CARPUS|CARPO|CARPAL|MAO|MAOS|PUNHOS?|IDADE OSSEA|BONE ?AGE|GREULICH"
    r"|MANO|MUNECA|EDAD OSEA)\b"
)
_HAND_CODES = frozenset(
    {
        "SCT:85562004",
        "SCT:74670003",
        "SCT:8205005",
        "SCT:24097009",
        "SRT:T-D8700",
        "SRT:T-15460",
        "SRT:T-D8600",
    }
)
_UNSPECIFIC_PARTS = frozenset(
    {
        "",
        "EXTREMITY",
        "UPPERLIMB",
        "UPPER LIMB",
        "UPPER EXTREMITY",
        "UP EXM",
        "MEMBRO SUPERIOR",
        "EXTREMIDADE",
        "SKELETON",
    }
)
_FRONTAL_VIEWS = frozenset({"", "PA", "AP", "DP", "D", "P", "FRONTAL"})
_FRONTAL_CODES = frozenset(
    {"SCT:399348003", "SCT:399033003", "SCT:272479007", "SRT:R-10206", "SRT:R-10214", "SRT:R-10202"}
)


def screen(header: Header) -> Eligible | Ineligible:
    """Apply every rule in order; the first objection decides."""
    for rule in _RULES:
        objection = rule(header)
        if objection is not None:
            return objection
    return Eligible(
        sex=Sex(header.sex),
        chronological_age_months=chronological_age_months(header),
        notes=tuple(_notes(header)),
    )


def chronological_age_months(header: Header) -> float | None:
    """Age on the study date, or None without both dates. Birth must not lie after the study."""
    if header.birth_date is None or header.study_date is None:
        return None
    return age_in_months(header.birth_date, header.study_date)


def plain_words(text: str) -> str:
    """Upper case, without accents, punctuation and underscores as blanks: ``Mão-e_punho`` to ``MAO
    E PUNHO``."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"[^A-Z0-9]+", " ", bare.upper()).strip()


def _ignore(reason: Reason) -> Ineligible:
    return Ineligible(reason=reason, disposition=Disposition.IGNORE)


def _reject(reason: Reason) -> Ineligible:
    return Ineligible(reason=reason, disposition=Disposition.REJECT)


def _own_result(header: Header) -> Ineligible | None:
    names = (header.manufacturer_model_name, *header.contributing_equipment)
    return _ignore(Reason.OWN_RESULT) if PRODUCT_NAME in names else None


def _sop_class(header: Header) -> Ineligible | None:
    if header.sop_class_uid == SECONDARY_CAPTURE:
        return _ignore(Reason.SECONDARY_CAPTURE)
    if header.sop_class_uid == DX_FOR_PROCESSING:
        return _ignore(Reason.FOR_PROCESSING)
    return None if header.sop_class_uid in _IMAGE_CLASSES else _ignore(Reason.OTHER_SOP_CLASS)


def _modality(header: Header) -> Ineligible | None:
    return None if header.modality in ("CR", "DX") else _ignore(Reason.OTHER_MODALITY)


def _body_part(header: Header) -> Ineligible | None:
    return None if _shows_hand(header) is not False else _ignore(Reason.OTHER_BODY_PART)


def _shows_hand(header: Header) -> bool | None:
    """True: the header says hand or wrist; False: it says another part; None: it says nothing
    specific."""
    part = plain_words(header.body_part_examined)
    if _HAND_WORDS.search(part) or _HAND_CODES.intersection(header.anatomic_region_codes):
        return True
    if part not in _UNSPECIFIC_PARTS:
        return False
    if any(_HAND_WORDS.search(plain_words(text)) for text in header.descriptions):
        return True
    return False if header.anatomic_region_codes else None


def _secondary(header: Header) -> Ineligible | None:
    if header.image_type[:2] == ("DERIVED", "SECONDARY") or header.conversion_type:
        return _reject(Reason.DERIVED_SECONDARY)
    return _reject(Reason.BURNED_IN_ANNOTATION) if header.burned_in_annotation == "YES" else None


def _photometry(header: Header) -> Ineligible | None:
    grey = header.photometric_interpretation in (
        "MONOCHROME1",
        "MONOCHROME2",
    ) and header.samples_per_pixel in (1, None)
    return None if grey else _reject(Reason.COLOUR_IMAGE)


def _geometry(header: Header) -> Ineligible | None:
    if header.number_of_frames not in (None, 1):
        return _reject(Reason.MULTI_FRAME)
    if not header.rows or not header.columns:
        return _reject(Reason.NO_PIXEL_DATA)
    if min(header.rows, header.columns) < MIN_SIDE_PIXELS:
        return _reject(Reason.IMAGE_TOO_SMALL)
    return _reject(Reason.IMAGE_TOO_LARGE) if header.rows * header.columns > MAX_PIXELS else None


def _view(header: Header) -> Ineligible | None:
    position = plain_words(header.view_position)
    if position in _FRONTAL_VIEWS and (position or _FRONTAL_CODES.issuperset(header.view_codes)):
        return None
    return _reject(Reason.VIEW_NOT_FRONTAL)


def _sex(header: Header) -> Ineligible | None:
    if not header.sex:
        return _reject(Reason.SEX_MISSING)
    return None if header.sex in ("F", "M") else _reject(Reason.SEX_NOT_SUPPORTED)


def _age(header: Header) -> Ineligible | None:
    if header.birth_date and header.study_date and header.birth_date > header.study_date:
        return _reject(Reason.BIRTH_AFTER_STUDY)
    age = chronological_age_months(header)
    if age is None or age <= MAX_AGE_MONTHS:
        return None
    implausible = age > _MAX_PLAUSIBLE_AGE_MONTHS
    return _reject(Reason.AGE_IMPLAUSIBLE if implausible else Reason.AGE_OUT_OF_RANGE)


_RULES: tuple[Callable[[Header], Ineligible | None], ...] = (
    _own_result,
    _sop_class,
    _modality,
    _body_part,
    _secondary,
    _photometry,
    _geometry,
    _view,
    _sex,
    _age,
)


def _notes(header: Header) -> Iterable[Note]:
    if header.birth_date is None:
        yield Note.BIRTH_DATE_MISSING
    if header.study_date is None:
        yield Note.STUDY_DATE_MISSING
    age = chronological_age_months(header)
    stated = header.patient_age_months
    if age is not None and stated is not None and abs(age - stated) > _MAX_AGE_DISAGREEMENT_MONTHS:
        yield Note.AGE_DISAGREES
    if _shows_hand(header) is None:
        yield Note.BODY_PART_UNSTATED
    if header.laterality is Laterality.RIGHT:
        yield Note.RIGHT_HAND
    if header.laterality in (Laterality.UNSTATED, Laterality.BOTH):
        yield Note.LATERALITY_UNSTATED
    if not header.view_position and not header.view_codes:
        yield Note.VIEW_UNSTATED
