"""Results of Storage Commitment on associations that the node opens (PS3.4 J.3.3)."""

from __future__ import annotations

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.adapters.scu.association import Peer, contexts_for, open_association
from dicom_node.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    SUCCESS,
    event_information,
    event_type,
)
from dicom_node.domain.commitment import CommitmentResult
from dicom_node.domain.errors import Fault, Transient


def send_result(
    peer: Peer, result: CommitmentResult, *, calling_ae_title: str, timeout_seconds: float
) -> None:
    """Send an N-EVENT-REPORT on a new association, as the provider (PS3.7 D.3.3.4).

    Raises ``Transient`` (DESTINATION_UNAVAILABLE) when the requester does not take it and
    ``Permanent`` (DESTINATION_REFUSED) when it rejects the association for good or accepts no
    context.
    """
    association = open_association(
        peer,
        contexts_for(
            [(PUSH_MODEL, uid) for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
        ),
        calling_ae_title=calling_ae_title,
        timeout_seconds=timeout_seconds,
        provides=[PUSH_MODEL],
    )
    try:
        answer, _ = association.send_n_event_report(
            event_information(result), event_type(result), PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
    finally:
        association.release()
    status = answer.get("Status")
    if status != SUCCESS:
        said = "nothing" if status is None else f"status {status:04X}"
        raise Transient(
            Fault.DESTINATION_UNAVAILABLE, f"{peer}: answered the N-EVENT-REPORT with {said}"
        )
