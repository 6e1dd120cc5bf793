"""Associations that the node requests: a TCP connection of our own, then pynetdicom.

pynetdicom hides why a connection failed and leaves Nagle's delay on. So the connection is made here
and handed over; the rest is its state machine.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, build_role, evt, timer
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from dicom_node import waiting
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.domain.receipt import Rejection
from dicom_node.tls import ContextSource

# Files are sent as they are, without decoding; requests are never logged.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Its timers read the wall clock, and a step of that would end, or keep, every association.
timer.time = SimpleNamespace(time=time.monotonic)  # type: ignore[attr-defined, assignment]

Handlers = Sequence[tuple[evt.EventType, Callable[..., Any], list[Any]]]

MAX_CONTEXTS = 128
"""Presentation contexts of one association: odd ids from 1 to 255 (PS3.8 9.3.2.2)."""


_IDLE_SECONDS = 10.0
"""After so long without work a kept association is released."""
_MARGIN_SECONDS = 2.0
"""Shortly before that moment it is not used any more: the release may be on its way."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A DICOM application entity on the network. ``tls``: what secures connections to it; None:
    nothing does."""

    host: str
    port: int
    ae_title: str
    tls: ContextSource | None = None

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class Refusal(StrEnum):
    """Why a TCP connection did not become an association."""

    REJECTED = "rejected"
    NO_CONTEXT = "no_context"
    """The peer is there, but accepts none of the proposed presentation contexts."""
    NO_ANSWER = "no_answer"
    """The peer aborted, closed the connection or said nothing in time."""


def connect(peer: Peer, timeout_seconds: float) -> socket.socket:
    """A TCP connection, secured where the peer wants it. Raises ``OSError``: refused, timed out,
    unknown host (``gaierror``), no trust (``SSLError``); ``Permanent`` (CERTIFICATE_INVALID)."""
    context = peer.tls() if peer.tls else None
    connection = socket.create_connection((peer.host, peer.port), timeout_seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=peer.host)
    except OSError:
        connection.close()
        raise


def negotiate(
    connection: socket.socket,
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    timeout_seconds: float,
    handlers: Handlers = (),
    provides: Sequence[str] = (),
    waits: bool = False,
) -> Association:
    """Request an association on an open connection, which it then owns; wait for the answer.
    ``handlers``: for what the peer asks on it; ``waits``: its threads wait (``waiting.py``), where
    the installed pynetdicom allows it.

    The result may not be established: :func:`refusal` says why. Raises ``OSError`` when the peer
    has reset the connection already, or when no descriptor is left.
    """
    try:
        host = connection.getpeername()[0]
    except OSError:
        connection.close()
        raise
    ae = _Requestor(calling_ae_title, connection, waits=waits and waiting.is_usable())
    ae.acse_timeout = timeout_seconds
    ae.dimse_timeout = timeout_seconds
    ae.network_timeout = timeout_seconds
    try:
        association = ae.associate(
            host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            ext_neg=[build_role(sop_class, scp_role=True) for sop_class in provides],
            evt_handlers=[
                (evt.EVT_DATA_SENT, _acknowledge_at_once, [connection]),
                # pynetdicom leaves the descriptor open where the peer closes first
                (evt.EVT_CONN_CLOSE, lambda _event: connection.close()),
                *handlers,
            ],
        )
    except BaseException:
        connection.close()
        raise
    if not association.is_established:
        connection.close()
    return association


def refusal(association: Association) -> Refusal | None:
    """Why an association was not established, None when it was."""
    if association.is_established:
        return None
    if association.is_rejected:
        return Refusal.REJECTED
    return Refusal.NO_CONTEXT if association.rejected_contexts else Refusal.NO_ANSWER


def rejection(association: Association) -> Rejection:
    """The code of an association that was rejected."""
    answer = association.acceptor.primitive
    assert answer is not None
    return Rejection(
        result=answer.result or 0, source=answer.result_source or 0, reason=answer.diagnostic or 0
    )


def open_association(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    timeout_seconds: float,
    handlers: Handlers = (),
    provides: Sequence[str] = (),
    waits: bool = False,
) -> Association:
    """An established association. ``provides``: SOP classes of which this side is the provider
    (PS3.7 D.3.3.4); ``waits``: as for :func:`negotiate`.

    Raises ``Transient`` (DESTINATION_UNAVAILABLE) when nobody answers or the peer rejects for now,
    ``Permanent`` (DESTINATION_REFUSED) when it rejects for good or accepts no context.
    """
    try:
        association = negotiate(
            connect(peer, timeout_seconds),
            peer,
            contexts,
            calling_ae_title=calling_ae_title,
            timeout_seconds=timeout_seconds,
            handlers=handlers,
            provides=provides,
            waits=waits,
        )
    except OSError as error:
        raise Transient(
            Fault.DESTINATION_UNAVAILABLE, f"{peer}: no connection: {reason_of(error)}"
        ) from None
    why = refusal(association)
    if why is not None:
        raise _error(peer, why, association)
    return association


class KeptAssociation:
    """An association that stays open between uses, until it has been idle for ten seconds: then it
    is released. Not safe for use from several threads at once.

    ``open_new``: makes one, and raises what :func:`open_association` raises.
    """

    def __init__(self, open_new: Callable[[], Association]) -> None:
        self._open_new = open_new
        self._association: Association | None = None
        self._used_at = 0.0

    def current(self) -> Association | None:
        """The one that is open and may be used; None: :meth:`renew`."""
        fresh = time.monotonic() - self._used_at < _IDLE_SECONDS - _MARGIN_SECONDS
        kept = self._association
        return kept if kept is not None and kept.is_established and fresh else None

    def renew(self) -> Association:
        """A new one in place of it."""
        self._association = None
        association = self._open_new()
        association.network_timeout = _IDLE_SECONDS
        association.network_timeout_response = "A-RELEASE"
        association._reactor_checkpoint.set()  # it may wait by the timeout of before
        self._association = association
        self.used()  # nothing may be sent on it, but it is fresh
        return association

    def used(self) -> None:
        """It was used now."""
        self._used_at = time.monotonic()

    def release(self) -> None:
        """Release it, if there is one."""
        if self._association is not None:
            self._association.release()
            self._association = None


def reason_of(error: OSError) -> str:
    """What the operating system said, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if error.errno == errno.ENOTCONN:
        return "the peer closed it at once"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or type(error).__name__}"
    return error.strerror or type(error).__name__


def contexts_for(pairs: Sequence[tuple[str, str]]) -> list[PresentationContext]:
    """One context for each pair of SOP class and transfer syntax, so that the peer's answer tells
    exactly what can be sent."""
    return [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]


def accepted_pairs(association: Association) -> frozenset[tuple[str, str]]:
    """The SOP classes and transfer syntaxes that the peer accepted."""
    return frozenset(
        (str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in association.accepted_contexts
    )


def uid_name(uid: str) -> str:
    """The standard's name of a UID, or the UID itself."""
    return UID(uid).name


def _error(peer: Peer, why: Refusal, association: Association) -> NodeError:
    if why is Refusal.NO_ANSWER:
        return Transient(
            Fault.DESTINATION_UNAVAILABLE, f"{peer}: the association request got no answer"
        )
    if why is Refusal.NO_CONTEXT:
        return Permanent(
            Fault.DESTINATION_REFUSED,
            f"{peer}: accepts none of the proposed SOP classes: configure the peer to store them",
        )
    answer = rejection(association)
    text = f"{peer}: the association was rejected: {answer.reason_text}"
    if answer.transient:
        return Transient(Fault.DESTINATION_UNAVAILABLE, text)
    return Permanent(Fault.DESTINATION_REFUSED, text)


def _acknowledge_at_once(_event: evt.Event, connection: socket.socket) -> None:
    """Re-arm quick acknowledgement: a peer with Nagle's delay waits 40 ms within its answer."""
    with contextlib.suppress(OSError):  # the connection ended meanwhile
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Requestor(AE):
    """An application entity for one association on a connection that is already open."""

    def __init__(self, ae_title: str, connection: socket.socket, *, waits: bool) -> None:
        super().__init__(ae_title)
        self._connection, self._waits = connection, waits

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: object
    ) -> AssociationSocket:
        if self._waits:
            waiting.attach(assoc, waiting.WaitingReader(assoc))
        return _OpenSocket(assoc, self._connection, address)


class _OpenSocket(AssociationSocket):
    """pynetdicom's socket around a connection that is already open."""

    def __init__(
        self, assoc: Association, connection: socket.socket, address: AddressInformation
    ) -> None:
        self._connection = connection
        super().__init__(assoc, address=address)

    def _create_socket(self, address: AddressInformation) -> socket.socket:
        return self._connection

    def connect(self, primitive: T_CONNECT) -> None:
        """Report the connection to the state machine (PS3.8 9.2, Evt2)."""
        self.assoc.requestor.address_info = AddressInformation.from_tuple(
            self._connection.getsockname()
        )
        self._is_connected = True
        primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()
