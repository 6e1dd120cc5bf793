"""The audit trail to a repository: syslog over TLS (RFC 5425, PS3.15 A.6)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence

from dicom_node.tls import ContextSource

_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.01


class Syslog:
    """Sends messages to a repository that shows a certificate for ``host``.

    RFC 5425 has no acknowledgement. Each batch has a connection of its own, whose end says whether
    the repository has read all of it; a message that is sent twice has the same number.
    """

    def __init__(self, host: str, port: int, context: ContextSource) -> None:
        self._host, self._port, self._context = host, port, context

    def take(self, messages: Sequence[bytes]) -> None:
        """Send messages in order and see that they were read. Raises ``OSError``
        (``ssl.SSLError`` too) and what the context's source raises."""
        context = self._context()
        with (
            socket.create_connection((self._host, self._port), _TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=self._host) as tls,
        ):
            for message in messages:
                tls.sendall(b"%d %s" % (len(message), message))
            _close_in_order(tls)


def _close_in_order(tls: ssl.SSLSocket) -> None:
    """Raises ``OSError`` unless the peer has read everything: its TCP acknowledged all bytes and
    both sides ended without a reset.

    The peer's close_notify is no proof: one that does not permit this node sends it as well,
    without reading. What it has not read then, or what comes after its end, it resets. Nor is it
    waited for: this side's end is what makes some peers read the last records.
    """
    _wait_for_acknowledgement(tls)
    tls.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLEOFError):
        tls.unwrap()  # sends close_notify
    tls.settimeout(_TIMEOUT_SECONDS)
    socket.socket.shutdown(tls, socket.SHUT_WR)  # from here on of the descriptor, not of TLS
    while socket.socket.recv(tls, 4096):
        pass
    _wait_for_acknowledgement(tls)
    if error := tls.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


def _wait_for_acknowledgement(connection: socket.socket) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0] > 0:
        if time.monotonic() > deadline:
            raise TimeoutError("the repository does not acknowledge what was sent")
        time.sleep(_POLL_SECONDS)
