"""Asks destinations whether they keep what they have stored: Storage Commitment SCU (PS3.4 Annex J)
and Query SCU (PS3.4 Annex C)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.adapters.scu.association import (
    KeptAssociation,
    Peer,
    contexts_for,
    open_association,
)
from dicom_node.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_ACTION,
    SUCCESS,
    ResultHandler,
    action_information,
    event_report_status,
)
from dicom_node.domain.commitment import CommitmentRequest, Evidence, Proof, SentObject
from dicom_node.domain.errors import Fault, Permanent, Transient

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_PENDING = frozenset({0xFF00, 0xFF01})
_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_RESULT_SECONDS = 1.0
"""So long the next request waits for the result of the last one; then it takes another
association."""


@dataclass(frozen=True, kw_only=True)
class VerifiedDestination:
    """A configured PACS and how it proves what it keeps."""

    name: str
    peer: Peer
    timeout_seconds: float
    proof: Proof


class DicomVerifier:
    """The port ``DeliveryVerifier`` over the network. Safe to use from several threads.

    ``told``: takes results that come on the association on which they were asked for; the others
    come to the receiver.
    """

    def __init__(
        self,
        destinations: Iterable[VerifiedDestination],
        *,
        calling_ae_title: str,
        told: ResultHandler,
    ) -> None:
        self._lines = {
            item.name: _Line(item, calling_ae_title, told)
            for item in destinations
            if item.proof is not Proof.STATUS
        }

    def verify(
        self, destination: str, sent: Sequence[SentObject], *, transaction_uid: str
    ) -> Mapping[str, Evidence]:
        """Ask for the objects: what a query finds is known at once, a commitment comes later.

        Raises ``Transient`` (DESTINATION_UNAVAILABLE, DESTINATION_BUSY) without a usable answer,
        ``Permanent`` (DESTINATION_REFUSED) when the destination rejects the association for good or
        does not offer the service.
        """
        return self._lines[destination].verify(sent, transaction_uid)

    def close(self) -> None:
        """Release every open association."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The way to one destination."""

    def __init__(
        self, destination: VerifiedDestination, calling_ae_title: str, told: ResultHandler
    ) -> None:
        self._destination = destination
        self._calling_ae_title = calling_ae_title
        self._told = told
        self._kept = KeptAssociation(self._open)
        """It stays open for the result as well, which may come on it."""
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._answered.set()
        self._answering: threading.Thread | None = None
        """pynetdicom's thread that took the last result: it sends the answer before it ends."""
        self._asked_on: Association | None = None
        """Where the last request went."""

    def verify(self, sent: Sequence[SentObject], transaction_uid: str) -> Mapping[str, Evidence]:
        """By the destination's way of proof."""
        with self._lock:
            self._await_result()
            association = self._kept.current() or self._kept.renew()
            try:
                if self._destination.proof is Proof.QUERY:
                    return {
                        item.reference.sop_instance_uid: self._query(association, item)
                        for item in sent
                    }
                self._request(association, sent, transaction_uid)
            except RuntimeError:  # the association ended since it was looked at
                raise self._no_answer() from None
            finally:
                self._kept.used()
        return {}

    def close(self) -> None:
        """Release the association, if there is one."""
        with self._lock:
            self._is_answer_sent()
            self._kept.release()

    def _await_result(self) -> None:
        """A result that crossed a request on its association would be taken for the answer, and a
        request that overtook the answer to a result for that answer."""
        if not (self._answered.wait(_RESULT_SECONDS) and self._is_answer_sent()):
            self._kept.release()
        self._answered.set()

    def _is_answer_sent(self) -> bool:
        """Whether the answer to the last result went out, now or soon."""
        if self._answering is not None:
            self._answering.join(_RESULT_SECONDS)
            if self._answering.is_alive():
                return False
            self._answering = None
        return True

    def _open(self) -> Association:
        query = self._destination.proof is Proof.QUERY
        service = STUDY_ROOT_FIND if query else PUSH_MODEL
        try:
            return open_association(
                self._destination.peer,
                contexts_for([(service, syntax) for syntax in _SYNTAXES]),
                calling_ae_title=self._calling_ae_title,
                timeout_seconds=self._destination.timeout_seconds,
                handlers=[(evt.EVT_N_EVENT_REPORT, self._on_event_report, [])],
            )
        except Permanent as error:
            setting = "verify_by_query" if query else "storage_commitment"
            raise Permanent(
                error.fault,
                f"{error}; {self._destination.name} does not offer what {setting} needs: enable "
                f"{UID(service).name} there, or set {setting} = false",
            ) from None

    def _on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """The result on the association on which it was asked for."""
        try:
            return event_report_status(lambda: event.event_information, self._told), None
        finally:
            if event.assoc is self._asked_on:  # not of one that was released meanwhile
                self._answering = threading.current_thread()
                self._answered.set()

    def _request(
        self, association: Association, sent: Sequence[SentObject], transaction_uid: str
    ) -> None:
        """Request commitment to all objects at once (PS3.4 J.3.2)."""
        request = CommitmentRequest(
            transaction_uid=transaction_uid, references=tuple(item.reference for item in sent)
        )
        self._answered.clear()
        self._answering, self._asked_on = None, association
        answer, _ = association.send_n_action(
            action_information(request), REQUEST_ACTION, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
        self._check(answer.get("Status"), "N-ACTION")

    def _query(self, association: Association, item: SentObject) -> Evidence:
        """Look for one object at the IMAGE level (PS3.4 C.6.2)."""
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "IMAGE"
        wanted.StudyInstanceUID = item.study_instance_uid
        wanted.SeriesInstanceUID = item.series_instance_uid
        wanted.SOPInstanceUID = item.reference.sop_instance_uid
        found = Evidence.LOST
        for answer, identifier in association.send_c_find(wanted, STUDY_ROOT_FIND):
            status = answer.get("Status")
            if status not in _PENDING:
                self._check(status, "C-FIND")
            elif identifier is not None and identifier.get("SOPInstanceUID") == (
                wanted.SOPInstanceUID
            ):
                found = Evidence.KEPT
        return found

    def _check(self, status: int | None, asked: str) -> None:
        if status is None:
            raise self._no_answer()
        if status != SUCCESS:
            raise Transient(
                Fault.DESTINATION_BUSY,
                f"destination {self._destination.name} answered the {asked} with status "
                f"{status:04X}: it is asked again",
            )

    def _no_answer(self) -> Transient:
        return Transient(
            Fault.DESTINATION_UNAVAILABLE,
            f"destination {self._destination.name} ({self._destination.peer}) did not say whether "
            "it keeps the report: it is asked again",
        )
