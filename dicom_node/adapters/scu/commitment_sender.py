"""Results of Storage Commitment on associations that the node opens (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Mapping

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

_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_TIMEOUT_SECONDS = 10.0


class ResultSender:
    """Tells requesters, by AE title, on an association for each result."""

    def __init__(self, requesters: Mapping[str, Peer], *, calling_ae_title: str) -> None:
        self._requesters = requesters
        self._calling_ae_title = calling_ae_title

    def __call__(self, ae_title: str, result: CommitmentResult) -> None:
        """Send an N-EVENT-REPORT as the provider (PS3.7 D.3.3.4).

        Raises ``Transient`` (DESTINATION_UNAVAILABLE) when the requester does not take it and
        ``Permanent`` (DESTINATION_REFUSED) when it rejects the association for good or accepts no
        context.
        """
        peer = self._requesters[ae_title]
        association = open_association(
            peer,
            contexts_for([(PUSH_MODEL, syntax) for syntax in _SYNTAXES]),
            calling_ae_title=self._calling_ae_title,
            timeout_seconds=_TIMEOUT_SECONDS,
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
