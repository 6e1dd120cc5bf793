"""Whom the node lets in: pure decisions over an association request (PS3.8 9.3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dicom_node.domain.receipt import (
    CALLED_AE_TITLE_NOT_RECOGNISED,
    CALLING_AE_TITLE_NOT_RECOGNISED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    Rejection,
)
from dicom_node.settings import Settings

LOCAL_INSTITUTION = "local"
"""Institution of senders that no institution lists, where senders are unrestricted."""


class Answer(StrEnum):
    """The answers to an association request; stable codes that an operator can count."""

    ACCEPTED = "accepted"
    DRAINING = "draining"
    LOOP = "loop"
    NO_CERTIFICATE = "no_certificate"
    STORAGE_FULL = "storage_full"
    TOO_MANY_ASSOCIATIONS = "too_many_associations"
    TOO_MANY_FROM_PEER = "too_many_from_peer"
    UNKNOWN_SENDER = "unknown_sender"
    WRONG_CALLED_AE_TITLE = "wrong_called_ae_title"
    WRONG_CERTIFICATE = "wrong_certificate"
    WRONG_NETWORK = "wrong_network"


class Service(StrEnum):
    """What a peer may do on an association; everybody may C-ECHO."""

    STORAGE = "storage"
    COMMITMENT = "commitment"
    """Ask the node to commit to objects, or tell it the result of its own requests."""


_REJECTIONS: Mapping[Answer, Rejection] = {
    Answer.DRAINING: TEMPORARY_CONGESTION,
    Answer.LOOP: CALLING_AE_TITLE_NOT_RECOGNISED,
    Answer.NO_CERTIFICATE: CALLING_AE_TITLE_NOT_RECOGNISED,
    Answer.STORAGE_FULL: TEMPORARY_CONGESTION,
    Answer.TOO_MANY_ASSOCIATIONS: LOCAL_LIMIT_EXCEEDED,
    Answer.TOO_MANY_FROM_PEER: LOCAL_LIMIT_EXCEEDED,
    Answer.UNKNOWN_SENDER: CALLING_AE_TITLE_NOT_RECOGNISED,
    Answer.WRONG_CALLED_AE_TITLE: CALLED_AE_TITLE_NOT_RECOGNISED,
    Answer.WRONG_CERTIFICATE: CALLING_AE_TITLE_NOT_RECOGNISED,
    Answer.WRONG_NETWORK: CALLING_AE_TITLE_NOT_RECOGNISED,
}


@dataclass(frozen=True, kw_only=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ and its connection say. Titles without padding; the address is an IP
    address. ``certificate_names``: of the verified certificate, None without TLS."""

    called_ae_title: str
    calling_ae_title: str
    peer_address: str
    certificate_names: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """How busy this process is. ``disk_used_percent`` is None when the disk does not answer."""

    associations: int
    associations_of_peer: int
    disk_used_percent: float | None
    draining: bool


@dataclass(frozen=True, kw_only=True)
class Admit:
    """The association may be established; its objects belong to the institution."""

    institution_id: str


@dataclass(frozen=True, kw_only=True)
class Reject:
    """The association is rejected, with this code to the peer and this answer in our figures."""

    answer: Answer
    rejection: Rejection


@dataclass(frozen=True, kw_only=True)
class _Sender:
    institution_id: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    certificate_names: frozenset[str]

    def objection_to(self, certificate_names: frozenset[str] | None) -> Answer | None:
        """An AE title is text that anybody may send: a certificate binds it to its owner."""
        if not self.certificate_names:
            return None
        if certificate_names is None:
            return Answer.NO_CERTIFICATE
        known = self.certificate_names & certificate_names
        return None if known else Answer.WRONG_CERTIFICATE

    def may_come_from(self, address: str) -> bool:
        peer = _plain_address(address)
        return not self.networks or any(peer in network for network in self.networks)


class Policy:
    """The rules of one configuration: who may associate, and how much at once."""

    def __init__(self, settings: Settings) -> None:
        self._ae_title = settings.node.ae_title
        self._receive = settings.receive
        self._tls_required = settings.tls.required
        self._senders = {
            title: _Sender(
                institution_id=institution.id,
                networks=institution.networks,
                certificate_names=frozenset(institution.certificate_names),
            )
            for institution in settings.institutions
            for title in institution.calling_ae_titles
        }
        self._requesters = {
            title for item in settings.institutions for title in item.storage_commitment
        }
        self._committing = {
            item.ae_title for item in settings.destinations if item.storage_commitment
        }

    def services(self, calling_ae_title: str) -> frozenset[Service]:
        """What an admitted peer may do. A destination that is no sender may only tell the results
        of Storage Commitment."""
        may = set()
        if calling_ae_title in self._senders or not self._receive.require_known_sender:
            may.add(Service.STORAGE)
        if calling_ae_title in self._requesters | self._committing:
            may.add(Service.COMMITMENT)
        return frozenset(may)

    def may_request(self, calling_ae_title: str) -> bool:
        """Whether the node commits to objects of this sender."""
        return calling_ae_title in self._requesters

    def decide(self, request: AssociationRequest, load: Load) -> Admit | Reject:
        """Permanent objections first, so that a stranger never takes a place."""
        answer = self._objection_to(request) or self._objection_now(load)
        if answer is not None:
            return Reject(answer=answer, rejection=_REJECTIONS[answer])
        sender = self._senders.get(request.calling_ae_title)
        return Admit(institution_id=sender.institution_id if sender else LOCAL_INSTITUTION)

    def has_room(self, disk_used_percent: float) -> bool:
        """Whether one more object may be kept on an open association: above the high-water mark
        half of what is left is for them, the rest for the work that is queued."""
        return disk_used_percent < (self._receive.high_water_percent + 100) / 2

    def institution_of(self, calling_ae_title: str) -> str | None:
        """Institution that lists a calling AE title."""
        sender = self._senders.get(calling_ae_title)
        return sender.institution_id if sender else None

    def _objection_to(self, request: AssociationRequest) -> Answer | None:
        if request.called_ae_title != self._ae_title:
            return Answer.WRONG_CALLED_AE_TITLE
        if request.calling_ae_title == self._ae_title:
            return Answer.LOOP
        if self._tls_required and request.certificate_names is None:
            return Answer.NO_CERTIFICATE
        sender = self._senders.get(request.calling_ae_title)
        if sender is None:
            known = self.services(request.calling_ae_title)
            return None if known else Answer.UNKNOWN_SENDER
        if not sender.may_come_from(request.peer_address):
            return Answer.WRONG_NETWORK
        return sender.objection_to(request.certificate_names)

    def _objection_now(self, load: Load) -> Answer | None:
        if load.draining:
            return Answer.DRAINING
        used = load.disk_used_percent
        if used is None or used >= self._receive.high_water_percent:
            return Answer.STORAGE_FULL
        if load.associations >= self._receive.max_associations:
            return Answer.TOO_MANY_ASSOCIATIONS
        if load.associations_of_peer >= self._receive.max_associations_per_peer:
            return Answer.TOO_MANY_FROM_PEER
        return None


def _plain_address(address: str) -> IPv4Address | IPv6Address:
    """An IPv4 peer of an IPv6 socket counts as IPv4; a zone (``%eth0``) does not count."""
    peer = ip_address(address.partition("%")[0])
    return peer.ipv4_mapped or peer if isinstance(peer, IPv6Address) else peer
