"""Deciding what a destination's answer means (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What to do with a report object after the destination's answer."""

    STORED = "stored"
    TRY_AGAIN = "try_again"
    REFUSED = "refused"


class ReportKind(StrEnum):
    """One object of a report."""

    MEASUREMENTS = "measurements"
    """Comprehensive 3D SR, TID 1500."""
    NARRATIVE = "narrative"
    """Enhanced SR, TID 2000."""


@dataclass(frozen=True, kw_only=True)
class ReportObject:
    """One encoded object of a report: ``encoded`` is a whole DICOM file (PS3.10)."""

    kind: ReportKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    encoded: bytes


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One report object's way to one destination."""

    sop_instance_uid: str
    destination: str
    status: int
    """Status of the C-STORE response (0000,0900)."""
    verdict: Verdict


def verdict_for_status(status: int) -> Verdict:
    """C-STORE status to verdict.

    0000, the warnings Bxxx and 0111 (duplicate: our UIDs are deterministic) count as stored; A7xx
    (out of resources),
    0110 (processing failure) and 0213 (resource limitation) are tried again; every other status is
    a refusal.
    """
    if status in (0x0000, 0x0111) or status & 0xF000 == 0xB000:
        return Verdict.STORED
    if status & 0xFF00 == 0xA700 or status in (0x0110, 0x0213):
        return Verdict.TRY_AGAIN
    return Verdict.REFUSED
