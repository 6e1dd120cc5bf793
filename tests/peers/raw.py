"""A peer that speaks to a receiver in bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from tests.builders.pdus import association_request
from tests.integration.peers import RunningReceiver


def connect(node: RunningReceiver) -> socket.socket:
    """A connection without an association."""
    return socket.create_connection(node.endpoint, timeout=20)


def associated(node: RunningReceiver) -> socket.socket:
    """A connection with an association."""
    connection = connect(node)
    connection.sendall(association_request())
    assert read_pdu(connection)[0] == 0x02
    return connection


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and content of the next PDU; type 0 at the end of the connection."""
    header = read(connection, 6)
    if len(header) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxL", header)
    return kind, read(connection, length)


def read(connection: socket.socket, count: int) -> bytes:
    """So many bytes, fewer where the connection ends before."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while len(received) < count and (more := connection.recv(count - len(received))):
            received += more
    return received


def flood(connection: socket.socket, pdu: bytes, *, seconds: float = 20.0) -> int:
    """Send the same PDU until the node has had enough; bytes that went away."""
    sent, deadline = 0, time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            sent += connection.send(pdu)
    return sent
