"""pynetdicom's server on a listening socket that several processes may share.

The socket is bound by :func:`~dicom_node.scp.port.listen` and handed to each receiver process
(inherited descriptor), so that the kernel gives a waiting connection to whichever process is free
and none is lost when one process ends. pynetdicom binds for itself; :class:`Listener` replaces
just that.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from pynetdicom import AE, _config, dimse_messages, evt, timer
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.domain.receipt import LOCAL_LIMIT_EXCEEDED
from dicom_node.logs import log
from dicom_node.scp import fast_path
from dicom_node.scp.contexts import verification_context
from dicom_node.scp.guard import (
    Cut,
    GuardedSocket,
    Limits,
    WaitingRoom,
    begins_association,
    guard_messages,
    has_no_peer,
    note_cut,
    secured,
    shakes_hands,
    wake,
)
from dicom_node.scp.incoming import IncomingFile
from dicom_node.scp.port import BACKLOG
from dicom_node.tls import ContextSource

_BUSY = struct.pack(
    ">BxLx3B",
    0x03,
    4,
    LOCAL_LIMIT_EXCEEDED.result,
    LOCAL_LIMIT_EXCEEDED.source,
    LOCAL_LIMIT_EXCEEDED.reason,
)
"""A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
_LINGER_SECONDS = 1.0
_MAX_TURNED_AWAY = 64
_HANDSHAKE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.1
_UNLIMITED = 100_000
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 30),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 60_000),
)

# Received data sets go to files, not to memory; requests are never logged.
_config.STORE_RECV_CHUNKED_DATASET = True
dimse_messages.NamedTemporaryFile = IncomingFile  # type: ignore[attr-defined, assignment]
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Its timers read the wall clock, and a step of that would end, or keep, every association.
timer.time = SimpleNamespace(time=time.monotonic)  # type: ignore[attr-defined, assignment]

Handlers = Sequence[tuple[evt.EventType, Callable[[evt.Event], Any]]]


class Listener(ThreadedAssociationServer):
    """Accepts connections of one application entity on ``listening``, which it then owns.

    ``fast``: by way of :mod:`fast_path`. ``tls``: what secures its connections; None: nothing
    does. ``closed`` is called once for every
    connection when its association and its temporary files are gone, ``untrusted`` with the address
    of a peer whose certificate is refused.
    """

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(
        self,
        ae: AE,
        listening: socket.socket,
        *,
        handlers: Handlers,
        closed: Callable[[Association], None],
        limits: Limits,
        waiting_room: WaitingRoom,
        fast: bool = False,
        tls: ContextSource | None = None,
        untrusted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._listening = listening
        self.untrusted = untrusted
        self.limits = limits
        self.fast = fast
        self.tls = tls
        self.waiting_room = waiting_room
        self._turned_away: deque[tuple[float, socket.socket]] = deque()
        self._thread: threading.Thread | None = None
        self.closed = closed
        # The node counts associations itself: only those that were admitted take a place.
        ae.maximum_associations = _UNLIMITED
        super().__init__(
            ae,
            listening.getsockname(),
            ae.ae_title,
            [verification_context()],
            evt_handlers=list(handlers),
            request_handler=Connection,
        )

    def start(self) -> None:
        """Accept connections in a thread."""
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Accept no more connections; open associations go on. Other processes keep the port."""
        if self._thread is not None:
            socketserver.BaseServer.shutdown(self)
            self._thread.join()
            self._thread = None
        self._listening.close()
        for _, connection in self._turned_away:
            connection.close()
        self._turned_away.clear()

    def server_bind(self) -> None:
        """Take the bound socket. Non-blocking, because another process may accept first."""
        assert self.socket is not None
        self.socket.close()
        self._listening.setblocking(False)
        self.socket = self._listening
        self.server_address = self._listening.getsockname()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection: no Nagle delay, dead peers noticed within two minutes."""
        connection, address = self._listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if it gets a place."""
        peer = str(client_address[0])
        if self.waiting_room.enter(request, peer, farewell=b"" if self.tls else _BUSY):
            super().process_request(request, client_address)
        else:
            note_cut(peer, Cut.TOO_MANY_CONNECTIONS)
            self._turn_away(request)

    def _turn_away(self, connection: socket.socket) -> None:
        """Answer before the request is read; close later, so that the answer is not lost."""
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            if self.tls is None:
                connection.send(_BUSY)
            connection.shutdown(socket.SHUT_WR)
        self._turned_away.append((time.monotonic() + _LINGER_SECONDS, connection))
        if len(self._turned_away) > _MAX_TURNED_AWAY:
            self._turned_away.popleft()[1].close()

    def service_actions(self) -> None:
        """What the accepting thread does between connections."""
        super().service_actions()
        while self._turned_away and self._turned_away[0][0] < time.monotonic():
            self._turned_away.popleft()[1].close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection's thread failed before its association began."""
        log("unexpected_error", error=sys.exception())


class Connection(RequestHandler):
    """One connection from accept to the end of its association."""

    server: Listener

    def handle(self) -> None:
        """Run the association, if the peer asks for one, then remove what it left behind."""
        room = self.server.waiting_room
        try:
            if self._is_welcome():
                room.speaks(self.request)
                self._run()
        finally:
            room.leave(self.request)
            self.request.close()  # pynetdicom does not where the peer has closed first

    def _is_welcome(self) -> bool:
        peer, tls = str(self.client_address[0]), self.server.tls
        if tls is None:
            return begins_association(self.request, peer, float(self.ae.acse_timeout or 0))
        room, context = self.server.waiting_room, tls()
        try:
            self.request = secured(self.request, context, room, _HANDSHAKE_SECONDS)
        except OSError:  # the peer has gone before the handshake
            return False
        return shakes_hands(self.request, peer, self.server.untrusted)

    def _run(self) -> None:
        association = self._create_association()
        files = guard_messages(association)
        association.bind(evt.EVT_DATA_SENT, _acknowledge_at_once, [self.request])
        association.bind(
            evt.EVT_ESTABLISHED, lambda _event: self.server.waiting_room.leave(self.request)
        )
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        while association.is_alive():
            association.join(_LOOK_SECONDS)
            if has_no_peer(association):
                wake(association)
                association.join()
        if association._started_dul:  # else there was no descriptor or thread left for it
            association.dul.join()
        for file in list(files):
            file.remove()
        self.server.closed(association)

    def _create_association(self) -> Association:
        """pynetdicom's, on a socket with limits instead of its own."""
        association, limits = super()._create_association(), self.server.limits
        if self.server.fast:
            fast_path.attach(association, self.request, limits)
            return association
        association.dul.event_queue.get_nowait()  # Evt5 of the socket that goes
        association.dul.socket = None
        association.set_socket(GuardedSocket(association, self.request, limits))
        return association


def _acknowledge_at_once(_event: evt.Event, connection: socket.socket) -> None:
    """Re-arm quick acknowledgement after each answer: a sender with Nagle's delay, as DCMTK, else
    waits 40 ms within every small object."""
    with contextlib.suppress(OSError):  # the connection ended meanwhile
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
