"""What forwarding to the centre needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dicom_node.domain.assessment import Prediction
from dicom_node.domain.delivery import (
    ReportKind,
)
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Exam
from dicom_node.domain.record import DeliveryRecord, ExamRecord, Heartbeat, StageTimes
from dicom_node.ports.node import Eligibility


@dataclass(frozen=True, kw_only=True)
class Forwardable:
    """What the ledger knows of an exam that the centre may learn, before pseudonyms. ``change``:
    how often it has changed."""

    exam: Exam
    change: int
    eligibility: Eligibility | None
    prediction: Prediction | None
    times: StageTimes
    object_kinds: tuple[ReportKind, ...]
    deliveries: tuple[DeliveryRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What the centre does not have yet. ``oldest_at``: since when, None when nothing waits."""

    waiting: int
    oldest_at: datetime | None
    refused: int


class Outbox(Protocol):
    """What the centre has still to learn. Every method is one transaction on the ledger and raises
    what the ledger's do."""

    def waiting(self, limit: int) -> tuple[Forwardable, ...]:
        """Exams whose facts the centre does not have, those that wait longest first."""

    def forwarded(self, changes: Mapping[int, int], *, batch: int) -> None:
        """The centre has these exams (id to change), by this batch."""

    def refused(self, exam_id: int, change: int, fault: Fault) -> None:
        """The centre will not take these facts; they wait until they change, which they may have
        done meanwhile, or are replayed."""

    def last_batch(self) -> int:
        """The last batch that the centre has acknowledged, 0 before the first."""

    def forget_after(self, batch: int) -> int:
        """The centre has lost the batches after this one: their exams wait again; how many."""


class CentralArchive(Protocol):
    """The centre. All methods raise ``Transient`` (CENTRAL_UNAVAILABLE) when it does not answer
    or (CENTRAL_FULL) has no room, and ``Permanent`` (CENTRAL_REFUSED) when it does not let this
    node in."""

    def last_batch(self) -> int:
        """The last batch of this node that the centre has, 0 before the first."""

    def store(self, records: Sequence[ExamRecord], *, batch: int) -> None:
        """Insert or replace these exams, all or none. Storing them again changes nothing.

        Raises ``Permanent`` (RECORD_REFUSED) for values that its constraints do not allow.
        """

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the node runs."""


class ExamPseudonyms(Protocol):
    """Names of exams and patients for the centre, with keys that stay in the region."""

    def of(self, exam: Exam, patient_pseudonym: str | None) -> CentralNames:
        """Always the same for an exam."""


@dataclass(frozen=True, kw_only=True)
class CentralNames:
    """64 hexadecimal digits each, 16 for the key's name."""

    exam_pseudonym: str
    patient_pseudonym: str | None
    key_id: str
