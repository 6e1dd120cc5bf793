"""pynetdicom's events, translated: the policy decides associations, the accept stage decides
objects."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from dicom_node import metrics
from dicom_node.domain.audit import Peer
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.receipt import Acceptance, StoreStatus
from dicom_node.logs import log
from dicom_node.ports import Quarantine
from dicom_node.scp.commitment import CommitmentProvider
from dicom_node.scp.contexts import commitment_context, supported_contexts
from dicom_node.scp.guard import is_news
from dicom_node.scp.incoming import IncomingFile
from dicom_node.scp.listener import Handlers
from dicom_node.scp.pace import Pace
from dicom_node.scp.policy import Answer, AssociationRequest, Load, Policy, Reject, Service
from dicom_node.scp.witness import Witness
from dicom_node.stages.accept import Accept
from dicom_node.tls import names_of

_UNKNOWN = "unknown"
_NOT_UNDERSTOOD = frozenset({StoreStatus.MISMATCH, StoreStatus.CANNOT_UNDERSTAND})
"""Sending it again does not help: a person has to see what the sender makes."""


@dataclass(frozen=True, kw_only=True)
class _Admission:
    institution_id: str
    peer_address: str


class Reception:
    """State and event handlers of one receiver process. Nothing here does slow work.

    ``stored`` is called with the exam's id after each stored object, before the answer is sent.
    ``disk_used_percent`` may raise ``Transient``; then senders are told to come back.
    ``quarantine`` keeps what cannot be understood.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        accept: Accept,
        stored: Callable[[int], None],
        disk_used_percent: Callable[[], float],
        pace: Pace,
        commitment: CommitmentProvider,
        witness: Witness,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._quarantine = quarantine
        self._pace = pace
        self._commitment = commitment
        self._witness = witness
        self._policy = policy
        self._accept = accept
        self._stored = stored
        self._disk_used_percent = disk_used_percent
        self._admitted: dict[Association, _Admission] = {}
        self._changed = threading.Condition()
        self._draining = False

    @property
    def events(self) -> Handlers:
        """What pynetdicom calls."""
        return (
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_RELEASED, lambda event: self.closed(event.assoc)),
            (evt.EVT_C_ECHO, lambda _event: StoreStatus.SUCCESS.value),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_EVENT_REPORT, self._commitment.on_event_report),
        )

    @property
    def open_associations(self) -> tuple[Association, ...]:
        """Associations that were admitted and have not ended."""
        with self._changed:
            return tuple(self._admitted)

    def begin_drain(self) -> None:
        """Reject every new association from now on, for the time being."""
        self._draining = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether the last association ended within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._admitted, seconds)

    def closed(self, association: Association) -> None:
        """An association ended and gives its place back; called again it changes nothing."""
        if association not in self._admitted:
            return
        self._witness.ended(association)  # first: a drain waits for the place, then all ends
        with self._changed:
            if self._admitted.pop(association, None) is None:
                return
            self._changed.notify_all()
        metrics.association_closed()

    def _on_requested(self, event: evt.Event) -> None:
        association = event.assoc
        primitive = association.requestor.primitive
        assert primitive is not None
        request = AssociationRequest(
            called_ae_title=primitive.called_ae_title.strip(),
            calling_ae_title=primitive.calling_ae_title.strip(),
            peer_address=association.requestor.address,
            certificate_names=_certificate_names(association),
        )
        rejected = self._admit(association, request)
        if rejected is None:
            association.acceptor.supported_contexts = self._contexts(
                request.calling_ae_title, primitive.presentation_context_definition_list
            )
            return
        code = rejected.rejection
        association.acse.send_reject(code.result, code.source, code.reason)
        association.kill()

    def _contexts(
        self, calling_ae_title: str, proposed: list[PresentationContext]
    ) -> list[PresentationContext]:
        services = self._policy.services(calling_ae_title)
        contexts = supported_contexts(proposed if Service.STORAGE in services else [])
        if Service.COMMITMENT in services:
            contexts.append(commitment_context())
        return contexts

    def _on_established(self, event: evt.Event) -> None:
        if self._may_request(event.assoc):
            self._commitment.return_results(event.assoc)

    def _may_request(self, association: Association) -> bool:
        return self._policy.may_request(association.requestor.ae_title.strip())

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        admission = self._admitted.get(event.assoc)
        if admission is None or not self._policy.may_request(
            event.assoc.requestor.ae_title.strip()
        ):
            return StoreStatus.NOT_AUTHORISED.value, None
        return self._commitment.on_action(event, admission.institution_id)

    def _admit(self, association: Association, request: AssociationRequest) -> Reject | None:
        """Decide and take the place in one step."""
        with self._changed:
            decision = self._policy.decide(request, self._load(request.peer_address))
            if not isinstance(decision, Reject):
                self._admitted[association] = _Admission(
                    institution_id=decision.institution_id, peer_address=request.peer_address
                )
        self._note(request, decision if isinstance(decision, Reject) else None)
        return decision if isinstance(decision, Reject) else None

    def _load(self, peer_address: str) -> Load:
        try:
            used = self._disk_used_percent()
        except Transient:
            used = None
        return Load(
            associations=len(self._admitted),
            associations_of_peer=sum(
                admission.peer_address == peer_address for admission in self._admitted.values()
            ),
            disk_used_percent=used,
            draining=self._draining,
        )

    def _note(self, request: AssociationRequest, rejected: Reject | None) -> None:
        institution = self._policy.institution_of(request.calling_ae_title)
        fields = {
            "peer": request.peer_address,
            "ae_title": request.calling_ae_title if institution else _UNKNOWN,
            "institution": institution,
        }
        if rejected is None:
            metrics.association_answered(Answer.ACCEPTED)
            metrics.association_opened()
            log("association_accepted", **fields)
        else:
            metrics.association_answered(rejected.answer)
            if is_news(request.peer_address, rejected.answer):
                log("association_rejected", **fields, reason=rejected.answer)
                self._alert(request, rejected)

    def _alert(self, request: AssociationRequest, rejected: Reject) -> None:
        """Who will never be let in is a matter of security; who comes at a bad time is not."""
        if not rejected.rejection.transient:
            peer = Peer(ae_title=request.calling_ae_title, address=request.peer_address)
            self._witness.refused(peer, f"association rejected: {rejected.answer}")

    def _on_store(self, event: evt.Event) -> int:
        begun = time.monotonic()
        try:
            acceptance, received_bytes = self._received(event)
        except Exception as error:
            # pynetdicom answers 0xC211; without this line nobody would learn why.
            log("unexpected_error", error=error)
            raise
        self._witness_arrival(event, acceptance)
        metrics.cstore_answered(acceptance.status, received_bytes=received_bytes)
        self._tell(event.assoc, acceptance, received_bytes, time.monotonic() - begun)
        self._hold_back(event.assoc)
        return acceptance.status.value

    def _witness_arrival(self, event: evt.Event, acceptance: Acceptance) -> None:
        requestor, path = event.assoc.requestor, event.request._dataset_path
        self._witness.arrived(
            event.assoc,
            Peer(ae_title=requestor.ae_title.strip(), address=requestor.address),
            str(event.request.AffectedSOPClassUID),
            content_sha256=acceptance.content_sha256,
            refused=path if isinstance(path, Path) else None,
        )

    def _received(self, event: evt.Event) -> tuple[Acceptance, int]:
        file = event.request._dataset_file
        incoming = file if isinstance(file, IncomingFile) else None
        if (incoming and incoming.lost) or not self._has_room():
            fault = Fault.STORAGE_UNAVAILABLE
            return Acceptance(status=StoreStatus.OUT_OF_RESOURCES, fault=fault), 0
        path = Path(event.dataset_path)
        received_bytes = path.stat().st_size
        acceptance = self._keep(event, path, incoming.content_sha256 if incoming else None)
        if acceptance.status in _NOT_UNDERSTOOD:
            self._set_aside(event.assoc, path, acceptance)
        return acceptance, received_bytes

    def _set_aside(self, association: Association, path: Path, acceptance: Acceptance) -> None:
        kept = self._quarantine.keep(path) if self._quarantine else None
        if kept is None:
            return
        metrics.object_quarantined(acceptance.status)
        log(
            "object_quarantined",
            sha256=kept.content_sha256,
            bytes=kept.size_bytes,
            peer=association.requestor.address,
            status=acceptance.status.value,
            fault=acceptance.fault,
        )

    def _hold_back(self, association: Association) -> None:
        """The answer waits where its institution sends too fast; the object is safe already."""
        admission = self._admitted.get(association)
        seconds = self._pace.wait_seconds(admission.institution_id) if admission else 0.0
        if seconds > 0:
            metrics.answer_held_back(seconds)
            time.sleep(seconds)

    def _has_room(self) -> bool:
        try:
            return self._policy.has_room(self._disk_used_percent())
        except Transient:
            return False

    def _keep(self, event: evt.Event, path: Path, content_sha256: str | None) -> Acceptance:
        request, requestor = event.request, event.assoc.requestor
        assert isinstance(request, C_STORE)
        admission = self._admitted.get(event.assoc)
        return self._accept.accept(
            path,
            command_sop_class_uid=str(request.AffectedSOPClassUID),
            command_sop_instance_uid=str(request.AffectedSOPInstanceUID),
            context_sop_class_uid=str(event.context.abstract_syntax),
            calling_ae_title=requestor.ae_title.strip(),
            peer_address=requestor.address,
            institution_id=admission.institution_id if admission else None,
            content_sha256=content_sha256,
        )

    def _tell(
        self, association: Association, acceptance: Acceptance, received_bytes: int, seconds: float
    ) -> None:
        admission = self._admitted.get(association)
        institution = admission.institution_id if admission else None
        if acceptance.exam_id is not None:
            log(
                "instance_stored",
                exam_id=acceptance.exam_id,
                institution=institution,
                receipt=acceptance.receipt,
                bytes=received_bytes,
                seconds=seconds,
            )
            self._stored(acceptance.exam_id)
        else:
            log(
                "instance_refused",
                peer=association.requestor.address,
                institution=institution,
                status=acceptance.status.value,
                fault=acceptance.fault,
            )


def _certificate_names(association: Association) -> frozenset[str] | None:
    connection = association.dul.socket.socket if association.dul.socket else None
    return names_of(connection) if isinstance(connection, ssl.SSLSocket) else None
