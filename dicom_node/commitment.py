"""Storage Commitment data sets to values and back (PS3.4 Annex J, PS3.3 C.14)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydicom.dataset import Dataset

from dicom_node.domain.commitment import (
    CommitmentRequest,
    CommitmentResult,
    FailureReason,
    Reference,
)

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP instance."""
REQUEST_ACTION = 1
"""Action Type ID (0000,1008): Request Storage Commitment."""
ALL_KEPT, SOME_FAILED = 1, 2
"""Event Type IDs (0000,1002): successful; complete, failures exist."""
SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110
NO_SUCH_ACTION, INVALID_ARGUMENT_VALUE = 0x0123, 0x0115
"""Statuses of the answers to both (PS3.7 10.1.1, 10.1.4, Annex C)."""

ResultHandler = Callable[[CommitmentResult], bool]
"""Takes a destination's result; False: nobody has asked for it."""


def action_information(request: CommitmentRequest) -> Dataset:
    """What an N-ACTION asks (PS3.4 Table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = request.transaction_uid
    asked.ReferencedSOPSequence = [_item(reference) for reference in request.references]
    return asked


def read_action(asked: Dataset) -> CommitmentRequest:
    """The reverse of :func:`action_information`. Raises ``ValueError`` where a part is missing."""
    references = _references(asked.get("ReferencedSOPSequence"))
    if not references:
        raise ValueError("no Referenced SOP Sequence")
    return CommitmentRequest(transaction_uid=_transaction_uid(asked), references=references)


def event_information(result: CommitmentResult) -> Dataset:
    """What an N-EVENT-REPORT says (PS3.4 Table J.3-2)."""
    told = Dataset()
    told.TransactionUID = result.transaction_uid
    if result.kept:
        told.ReferencedSOPSequence = [_item(reference) for reference in result.kept]
    if result.failed:
        told.FailedSOPSequence = []
        for reference, reason in result.failed:
            item = _item(reference)
            item.FailureReason = reason
            told.FailedSOPSequence.append(item)
    return told


def read_event(told: Dataset) -> CommitmentResult:
    """The reverse of :func:`event_information`. Raises ``ValueError`` where a part is missing."""
    failed = told.get("FailedSOPSequence") or ()
    reasons = [int(item.get("FailureReason", FailureReason.PROCESSING_FAILURE)) for item in failed]
    return CommitmentResult(
        transaction_uid=_transaction_uid(told),
        kept=_references(told.get("ReferencedSOPSequence")),
        failed=tuple(zip(_references(failed), reasons, strict=True)),
    )


def event_report_status(read: Callable[[], Dataset], told: ResultHandler) -> int:
    """The answer to an N-EVENT-REPORT, whose content ``read`` decodes."""
    try:
        result = read_event(read())
    except Exception:  # noqa: BLE001 hostile bytes raise anything in pydicom
        return INVALID_ARGUMENT_VALUE
    return SUCCESS if told(result) else INVALID_ARGUMENT_VALUE


def event_type(result: CommitmentResult) -> int:
    """Event Type ID of a result."""
    return SOME_FAILED if result.failed else ALL_KEPT


def _transaction_uid(dataset: Dataset) -> str:
    uid = str(dataset.get("TransactionUID") or "")
    if not uid:
        raise ValueError("no Transaction UID")
    return uid


def _references(items: Iterable[Dataset] | None) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            sop_class_uid=str(item.get("ReferencedSOPClassUID") or ""),
            sop_instance_uid=str(item.get("ReferencedSOPInstanceUID") or ""),
        )
        for item in items or ()
    )


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
