"""Limits that pynetdicom does not set: how long a PDU may take, how large it and a message may be,
how far a peer may send ahead, and how many connections may wait without an association.

A peer that breaks one is cut off with an A-ABORT (PS3.8 9.3.8) where PDUs can be exchanged at all.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_node import metrics
from dicom_node.logs import log
from dicom_node.scp.incoming import IncomingFile, collected_in


class Cut(StrEnum):
    """Why a connection was cut off; stable codes that an operator can count."""

    COMMAND_TOO_LARGE = "command_too_large"
    MALFORMED_MESSAGE = "malformed_message"
    MESSAGE_TOO_LARGE = "message_too_large"
    NOT_DICOM = "not_dicom"
    NO_ASSOCIATION = "no_association"
    NO_TLS = "no_tls"
    PDU_TOO_LARGE = "pdu_too_large"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_SLOW = "too_slow"


class Distrust(StrEnum):
    """What a handshake says of a peer beside being cut."""

    CERTIFICATE = "certificate"


class LimitExceeded(Exception):
    """Ends the association: no error of the transport, which pynetdicom would take for its end."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may ask for.

    ``pdu_bytes``: the longest P-DATA-TF that the node announces (PS3.8 D.1). ``message_bytes``: one
    DIMSE message with its data set. ``pdu_seconds``: from the first to the last byte of a PDU.
    """

    pdu_bytes: int
    message_bytes: int
    pdu_seconds: float


_HEADER = struct.Struct(">BxL")
"""PDU type, reserved, PDU length (PS3.8 9.3.1)."""
_A_ASSOCIATE = frozenset({0x01, 0x02})
_P_DATA_TF = 0x04
_KNOWN = range(0x01, 0x08)
_MAX_ASSOCIATE_BYTES = 256 * 1024
_MAX_SHORT_BYTES = 1024
"""Rejections, releases and aborts have four bytes."""
_PDU_SLACK_BYTES = 1024
_MAX_COMMAND_BYTES = 64 * 1024
_MAX_BYTES_IN_MEMORY = 4 * 1024 * 1024
"""Data sets of messages that store nothing; those of C-STORE go to a file."""
_MAX_WAITING_MESSAGES = 2
_LOOK_SECONDS = 5.0
"""How often a silent connection is looked at."""


class GuardedSocket(AssociationSocket):
    """The socket of an accepted association, with limits."""

    def __init__(self, association: Association, connection: socket.socket, limits: Limits) -> None:
        super().__init__(association, client_socket=connection)
        self._limits = limits
        self._within_pdu = False
        self._message_bytes = 0
        self._deadline = 0.0
        connection.settimeout(_LOOK_SECONDS)

    @property
    def may_read(self) -> bool:
        """Whether there is room for another message. What a peer sends ahead of our answers stays
        in the kernel, which tells it to wait."""
        return self.assoc.dimse.msg_queue.qsize() < _MAX_WAITING_MESSAGES

    @property
    def ready(self) -> bool:
        """Whether there is data to read, and room for it."""
        return self.may_read and super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU's header, and with the next call the rest of it; less where the peer has
        gone.

        Raises ``OSError`` as a socket does and :class:`LimitExceeded`.
        """
        try:
            if self._within_pdu:
                self._within_pdu = False
                return self._read(nr_bytes)
            self._check_message()
            self._deadline = time.monotonic() + self._limits.pdu_seconds
            header = self._read(nr_bytes)
            if len(header) == _HEADER.size:
                self._check_header(*_HEADER.unpack(header))
            return header
        except LimitExceeded:
            self._wake()
            raise

    def _read(self, nr_bytes: int) -> bytearray:
        received, at = bytearray(nr_bytes), 0
        with memoryview(received) as view:
            while at < nr_bytes and (count := self._receive(view[at:])):
                at += count
        return received if at == nr_bytes else received[:at]

    def _receive(self, view: memoryview) -> int:
        """At least one byte of a PDU, which may take its time and no more; 0: the peer has gone."""
        assert self.socket is not None
        while True:
            if time.monotonic() > self._deadline:
                raise self._cut(Cut.TOO_SLOW)
            try:
                count = self.socket.recv_into(view)
            except TimeoutError:
                continue
            except OSError:
                self._wake()
                raise
            if count == 0:
                self._wake()
            return count

    def _check_header(self, pdu_type: int, length: int) -> None:
        if pdu_type not in _KNOWN:
            return  # pynetdicom aborts
        self._within_pdu = True
        if pdu_type == _P_DATA_TF:
            allowed = self._limits.pdu_bytes + _PDU_SLACK_BYTES
        else:
            allowed = _MAX_ASSOCIATE_BYTES if pdu_type in _A_ASSOCIATE else _MAX_SHORT_BYTES
        if length > allowed:
            raise self._cut(Cut.PDU_TOO_LARGE)
        self._message_bytes += length
        if self._message_bytes > self._limits.message_bytes:
            raise self._cut(Cut.MESSAGE_TOO_LARGE)

    def _check_message(self) -> None:
        """Look at the message that is being received; between two of them there is none."""
        message = self.assoc.dimse.message
        if message is None:
            self._message_bytes = 0
        elif message.encoded_command_set.tell() > _MAX_COMMAND_BYTES:
            raise self._cut(Cut.COMMAND_TOO_LARGE)
        elif message.data_set is not None and message.data_set.tell() > _MAX_BYTES_IN_MEMORY:
            raise self._cut(Cut.MESSAGE_TOO_LARGE)

    def _cut(self, why: Cut) -> LimitExceeded:
        note_cut(self.assoc.requestor.address, why)
        return LimitExceeded(why)

    def _wake(self) -> None:
        """The association waits for a request that will not come."""
        if not self.assoc.is_established:
            wake(self.assoc)


def guard_messages(association: Association) -> list[IncomingFile]:
    """Have messages that pynetdicom cannot read end in an A-ABORT instead of killing its reader.

    Returns the files of data sets that were received and not yet handled; what stands there when
    the association has ended is to be removed.
    """
    receive, files = association.dimse.receive_primitive, list[IncomingFile]()

    def guarded(primitive: P_DATA) -> None:
        try:
            with collected_in(files):
                for value in primitive.presentation_data_value_list:
                    receive(_one(value))  # of several it drops what follows the end of a message
            if not all(
                _is_expected(waiting) for _, waiting in list(association.dimse.msg_queue.queue)
            ):
                raise LimitExceeded(Cut.MALFORMED_MESSAGE)
        except Exception:  # noqa: BLE001 hostile bytes raise anything in pydicom and pynetdicom
            note_cut(association.requestor.address, Cut.MALFORMED_MESSAGE)
            association.dul.event_queue.put("Evt19")  # PS3.8 9.2.2: an invalid PDU

    association.dimse.receive_primitive = guarded  # type: ignore[method-assign]
    return files


def _one(value: tuple[int, bytes]) -> P_DATA:
    fragment, values = P_DATA(), [list(value)]
    fragment.presentation_data_value_list = values  # type: ignore[assignment]
    return fragment


def wake(association: Association) -> None:
    """End the wait for a request that will not come: pynetdicom takes None for its time-out."""
    waits_at: Any = association.dul.to_user_queue
    waits_at.put(None)


def has_no_peer(association: Association) -> bool:
    """Whether an association still waits for a request on a connection that has ended."""
    if association.is_established or not association._started_dul:
        return False
    connection = association.dul.socket
    return not association.dul.is_alive() or connection is None or connection.socket is None


def _is_expected(message: object) -> bool:
    """What is no valid request is never handled: pynetdicom drops it, but not its file. The one
    answer that the node waits for is that to its N-EVENT-REPORT, which has no file."""
    told = isinstance(message, N_EVENT_REPORT) and message.is_valid_response
    return told or bool(getattr(message, "is_valid_request", False))


def begins_association(connection: socket.socket, peer: str, seconds: float) -> bool:
    """Whether the first byte that a peer sends is that of an A-ASSOCIATE-RQ. A health check
    that connects and leaves costs a wait, not an association."""
    connection.settimeout(seconds)
    try:
        first = connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        note_cut(peer, Cut.NO_ASSOCIATION)
        return False
    except OSError:
        return False
    if first and first != b"\x01":
        note_cut(peer, Cut.NOT_DICOM)
    return first == b"\x01"


@dataclass
class _Waiting:
    peer: str
    farewell: bytes
    silent: bool = True


def secured(
    connection: socket.socket, context: ssl.SSLContext, room: WaitingRoom, seconds: float
) -> ssl.SSLSocket:
    """TLS on an accepted connection, which the result owns from now on, before the handshake: its
    place goes over to the result. Raises ``OSError`` when the peer has gone."""
    connection.settimeout(seconds)
    tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    room.hand_over(connection, tls)
    return tls


def shakes_hands(tls: ssl.SSLSocket, peer: str, untrusted: Callable[[str], None]) -> bool:
    """Whether the handshake succeeds, in the connection's own thread: a silent peer delays nobody
    else. ``untrusted`` is called for a peer whose TLS or certificate is refused, at most once a
    minute."""
    try:
        tls.do_handshake()
    except OSError as error:
        note_cut(peer, Cut.NO_TLS)
        refused = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
        if refused and is_news(peer, Distrust.CERTIFICATE):
            untrusted(peer)
        return False
    return True


class WaitingRoom:
    """Connections that have no association yet: so many in all, so many of one peer.

    A full room makes place by turning out the connection that has been silent for longest, of the
    peer that has most among those with a silent one: who only connects keeps nobody out.
    """

    def __init__(self, *, places: int, places_of_peer: int) -> None:
        self._places, self._places_of_peer = places, places_of_peer
        self._waiting: dict[socket.socket, _Waiting] = {}
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket, peer: str, *, farewell: bytes = b"") -> bool:
        """Take a place, until :meth:`leave`; False: there is none. ``farewell``: what the peer is
        told where it is turned out."""
        with self._lock:
            counts = Counter(waiting.peer for waiting in self._waiting.values())
            if counts[peer] >= self._places_of_peer:
                crowded = [peer]
            elif counts.total() >= self._places:
                crowded = [name for name, _ in counts.most_common()]
            else:
                crowded = []
            if crowded and not any(self._turn_out(name) for name in crowded):
                return False
            self._waiting[connection] = _Waiting(peer, farewell)
        return True

    def speaks(self, connection: socket.socket) -> None:
        """The peer has begun to ask for an association: it is not turned out any more."""
        with self._lock:
            if connection in self._waiting:
                self._waiting[connection].silent = False

    def hand_over(self, connection: socket.socket, tls: socket.socket) -> None:
        """The place of a connection is now that of the TLS socket that owns its descriptor."""
        with self._lock:
            waiting = self._waiting.pop(connection, None)
            if waiting is None:  # turned out meanwhile
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(tls, socket.SHUT_RDWR)
            else:
                self._waiting[tls] = waiting

    def leave(self, connection: socket.socket) -> None:
        """Give the place back, if it is still taken."""
        with self._lock:
            self._waiting.pop(connection, None)

    def _turn_out(self, peer: str) -> bool:
        for connection, waiting in self._waiting.items():  # oldest first
            if waiting.peer == peer and waiting.silent:
                del self._waiting[connection]
                with contextlib.suppress(OSError):  # of the descriptor, not of TLS upon it
                    socket.socket.send(connection, waiting.farewell, socket.MSG_DONTWAIT)
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                note_cut(peer, Cut.NO_ASSOCIATION)
                return True
        return False


_QUIET_SECONDS = 60.0
_MAX_REMEMBERED = 1000
_told: dict[tuple[str, StrEnum], float] = {}


def is_news(peer: str, why: StrEnum) -> bool:
    """Whether nothing of the kind was said of a peer within a minute: a flood may not fill the
    log."""
    now = time.monotonic()
    if now < _told.get((peer, why), 0.0):
        return False
    if len(_told) >= _MAX_REMEMBERED:
        _told.clear()
    _told[peer, why] = now + _QUIET_SECONDS
    return True


def note_cut(peer: str, why: Cut) -> None:
    """Count a cut connection, and name its peer if that is news."""
    metrics.connection_cut(why)
    if is_news(peer, why):
        log("connection_cut", peer=peer, reason=why)
