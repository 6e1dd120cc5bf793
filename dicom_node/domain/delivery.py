"""As what a report object is sent, and what a destination's answer means (PS3.4 B.2.3, PS3.7
Annex C)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Verdict(StrEnum):
    """What to do with a report object after the destination's answer."""

    STORED = "stored"
    TRY_AGAIN = "try_again"
    REFUSED = "refused"
    NOT_TAKEN = "not_taken"
    """The destination stores no SOP class that the object can be sent as."""


class ReportKind(StrEnum):
    """One object of a report."""

    MEASUREMENTS = "measurements"
    """Comprehensive 3D SR, TID 1500."""
    NARRATIVE = "narrative"
    """Enhanced SR, TID 2000."""
    CAPTURE = "capture"
    """Secondary Capture Image: the report as a picture."""
    PDF = "pdf"
    """Encapsulated PDF: the picture and the text on one page."""


DRAWN = frozenset({ReportKind.CAPTURE, ReportKind.PDF})
"""What shows the radiograph; the others are words and numbers."""

_COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
_ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
_BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"

SOP_CLASSES: Mapping[ReportKind, tuple[str, ...]] = {
    ReportKind.MEASUREMENTS: (_COMPREHENSIVE_3D_SR, _COMPREHENSIVE_SR, _ENHANCED_SR),
    ReportKind.NARRATIVE: (_ENHANCED_SR, _COMPREHENSIVE_SR, _COMPREHENSIVE_3D_SR, _BASIC_TEXT_SR),
    ReportKind.PDF: (_ENCAPSULATED_PDF,),
    ReportKind.CAPTURE: (_SECONDARY_CAPTURE,),
}
"""As what each object may be sent, the best first: each of these classes allows its content items
(PS3.3 A.35). Basic Text SR has no numbers and no regions."""

SOP_CLASS_NOT_SUPPORTED = 0x0122
"""PS3.7 C.4.2: what a destination would answer that accepted no presentation context for an
object."""


@dataclass(frozen=True, kw_only=True)
class ReportObject:
    """One encoded object of a report: ``encoded`` is a whole DICOM file (PS3.10)."""

    kind: ReportKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    encoded: bytes


@dataclass(frozen=True, kw_only=True)
class PreviousReport:
    """The last report of an image that is reported again. ``revision``: 1 for its first report;
    ``study_instance_uid``: the study that it went to, which a correction may leave."""

    revision: int
    study_instance_uid: str
    objects: tuple[ReportObject, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a destination said to one object.

    ``status``: of the C-STORE response (0000,0900), SOP_CLASS_NOT_SUPPORTED where it accepted none
    of the object's SOP classes. ``sent_sop_class_uid``, ``sent_sop_instance_uid``: as what the
    object was sent.
    """

    status: int
    sent_sop_class_uid: str
    sent_sop_instance_uid: str


NOTHING_DELIVERED: Mapping[str, Answer] = MappingProxyType({})
"""What a destination has stored before the first report of an image."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One report object's way to one destination."""

    sop_instance_uid: str
    destination: str
    answer: Answer
    verdict: Verdict


def verdict_for_status(status: int) -> Verdict:
    """C-STORE status to verdict.

    0000, the warnings Bxxx and 0111 (duplicate: our UIDs are deterministic) count as stored; A7xx
    (out of resources), 0110 (processing failure) and 0213 (resource limitation) are tried again;
    0122 (SOP class not supported) is no fault of the object; every other status is a refusal.
    """
    if status in (0x0000, 0x0111) or status & 0xF000 == 0xB000:
        return Verdict.STORED
    if status & 0xFF00 == 0xA700 or status in (0x0110, 0x0213):
        return Verdict.TRY_AGAIN
    if status == SOP_CLASS_NOT_SUPPORTED:
        return Verdict.NOT_TAKEN
    return Verdict.REFUSED
