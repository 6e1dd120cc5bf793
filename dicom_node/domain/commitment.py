"""Storage Commitment: proof that an object is kept by whom it was sent to (PS3.4 Annex J)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum


class Evidence(StrEnum):
    """What is known about an object that a destination answered with success."""

    KEPT = "kept"
    LOST = "lost"
    """The destination does not have it, or will not keep it."""


class Proof(StrEnum):
    """What closes a delivery."""

    STATUS = "status"
    """The C-STORE status 0000 is enough."""
    COMMITMENT = "commitment"
    QUERY = "query"
    """A C-FIND for the object finds it."""


class FailureReason(IntEnum):
    """Why an object is not committed to: (0008,1197), PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


MAX_LOSSES = 3
"""So often an object is sent again that a destination had answered with success and lost."""
ASK_AGAIN = timedelta(hours=1)
"""After so long without a result the destination is asked again."""
TIME_TO_INDEX = timedelta(minutes=10)
"""A destination that does not find an object so soon after its answer is asked again."""

_PASSING = frozenset(
    {
        FailureReason.PROCESSING_FAILURE,
        FailureReason.DUPLICATE_TRANSACTION_UID,
        FailureReason.RESOURCE_LIMITATION,
    }
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One object: (0008,1150) and (0008,1155)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class CommitmentResult:
    """An N-EVENT-REPORT's content (PS3.4 J.3.3). ``failed``: with each object's reason, which may
    be any number."""

    transaction_uid: str
    kept: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]

    @property
    def evidence(self) -> dict[str, Evidence]:
        """SOP Instance UID to what is known now; objects that failed for a passing reason are
        missing."""
        lost = {
            reference.sop_instance_uid: Evidence.LOST
            for reference, reason in self.failed
            if reason not in _PASSING
        }
        return lost | {reference.sop_instance_uid: Evidence.KEPT for reference in self.kept}


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """An N-ACTION's content (PS3.4 J.3.2)."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class SentObject:
    """A report object that a destination answered with success and that nothing proves yet, as it
    was sent. ``made_sop_instance_uid``: as it was made; ``losses``: how often it was lost."""

    reference: Reference
    study_instance_uid: str
    series_instance_uid: str
    made_sop_instance_uid: str
    answered_at: datetime
    evidence: Evidence | None
    evidence_at: datetime | None
    losses: int

    @property
    def lost(self) -> bool:
        """Whether it has to be sent again: the destination had the time to find it."""
        at = self.evidence_at
        return (
            self.evidence is Evidence.LOST
            and at is not None
            and (at - self.answered_at >= TIME_TO_INDEX)
        )


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What somebody asked the node to commit to and has not been answered."""

    promise_id: int
    ae_title: str
    institution_id: str
    request: CommitmentRequest
    attempt: int
