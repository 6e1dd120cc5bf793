"""One exception tree, split by what the caller does next: try again later, or park the job for a
person."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum


class Fault(StrEnum):
    """Why a job failed; stable codes that an operator can count."""

    ARCHIVE_DAMAGED = "archive_damaged"
    ARCHIVE_REFUSED = "archive_refused"
    ARCHIVE_UNAVAILABLE = "archive_unavailable"
    CENTRAL_FULL = "central_full"
    CENTRAL_REFUSED = "central_refused"
    CENTRAL_UNAVAILABLE = "central_unavailable"
    CERTIFICATE_INVALID = "certificate_invalid"
    COMMITMENT_PENDING = "commitment_pending"
    CONFLICTING_CONTENT = "conflicting_content"
    CORRUPT_SPOOL = "corrupt_spool"
    CRASHED_REPEATEDLY = "crashed_repeatedly"
    DECODING_STOPPED = "decoding_stopped"
    DESTINATION_BUSY = "destination_busy"
    DESTINATION_REFUSED = "destination_refused"
    DESTINATION_UNAVAILABLE = "destination_unavailable"
    DESTINATION_UNKNOWN = "destination_unknown"
    INSTITUTION_UNKNOWN = "institution_unknown"
    LEASE_LOST = "lease_lost"
    LEDGER_DAMAGED = "ledger_damaged"
    OBJECT_TOO_LARGE = "object_too_large"
    OPERATOR = "operator"
    PICTURE_NOT_DRAWN = "picture_not_drawn"
    PREDICTION_INVALID = "prediction_invalid"
    PREDICTOR_UNAVAILABLE = "predictor_unavailable"
    RECORD_REFUSED = "record_refused"
    REPORT_INVALID = "report_invalid"
    REPORT_NOT_KEPT = "report_not_kept"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    UNEXPECTED = "unexpected"
    UNREADABLE_OBJECT = "unreadable_object"


class NodeError(Exception):
    """Base of all errors the node raises on purpose. The message never holds patient data."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class Transient(NodeError):
    """Trying again later may succeed: at ``again_at`` where that is known."""

    def __init__(self, fault: Fault, message: str, *, again_at: datetime | None = None) -> None:
        super().__init__(fault, message)
        self.again_at = again_at


class Permanent(NodeError):
    """Trying again gives the same result: a person must look."""


class LeaseLost(Transient):
    """Another worker owns the job now; the late result was not written."""

    def __init__(self, job_id: int) -> None:
        super().__init__(
            Fault.LEASE_LOST, f"job {job_id} belongs to another worker now; this result was dropped"
        )
