"""The port that modalities connect to: opened before anything else is loaded."""

from __future__ import annotations

import socket

BACKLOG = 256


def listen(bind: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises ``OSError`` when the port is
    taken."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    return socket.create_server((bind, port), family=family, backlog=BACKLOG)
