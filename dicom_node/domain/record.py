"""What may leave the region about an exam: an allow-list by type. There is no field for anything
else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.exam import Outcome, Sex


class DeliveryOutcome(StrEnum):
    """How far a report's way to one destination is."""

    OPEN = "open"
    DELIVERED = "delivered"
    PARKED = "parked"
    DISCARDED = "discarded"


@dataclass(frozen=True, kw_only=True)
class DeliveryRecord:
    """A report's way to one destination (its configured name)."""

    destination: str
    outcome: DeliveryOutcome
    delivered_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """What was assessed. Months; ``z_score``: None where the reference table has no row."""

    bone_age_months: float
    sd_months: float
    z_score: float | None
    model: ModelIdentity


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """How long an exam took in each stage, seconds; None for one that it did not go through."""

    screen_seconds: float | None = None
    infer_seconds: float | None = None
    report_seconds: float | None = None
    reported_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ExamRecord:
    """One exam as the centre knows it: pseudonymous, still personal data (LGPD art. 13 §4).

    ``exam_pseudonym`` and ``patient_pseudonym``: HMAC-SHA-256 with a key of the institution that
    never leaves the region, 64 hexadecimal digits; ``key_id`` names the key. The age is in whole
    months.
    """

    region: str
    node: str
    institution_id: str
    exam_pseudonym: str
    patient_pseudonym: str | None
    key_id: str
    received_at: datetime
    chronological_age_months: int | None
    sex: Sex | None
    outcome: Outcome
    reason: str | None
    result: ResultRecord | None
    object_kinds: tuple[ReportKind, ...]
    times: StageTimes
    deliveries: tuple[DeliveryRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """That a node ran, and how its queues were."""

    region: str
    node: str
    version: str
    at: datetime
    ready: bool
    queued: int
    parked: int
