"""A C-STORE sender that costs next to nothing: its PDUs are made before the clock runs.

`python -m tests.peers.pdu_sender` reads one order as JSON on standard input and writes one result.
It shares nothing with the node but the association request, which pynetdicom encodes.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.builders.pdus import (
    RELEASE,
    association_request,
    p_data,
    status_in,
    store_command,
)

_PREFIX = "1.2.826.0.1.3680043.10.999."


@dataclass(frozen=True, kw_only=True)
class Template:
    """An object to send again and again, each time with another SOP Instance UID.

    ``data_set``: encoded, with ``uid`` once in its first 4,096 bytes.
    """

    sop_class_uid: str
    transfer_syntax_uid: str
    uid: str
    data_set: Path


@dataclass(frozen=True, kw_only=True)
class Order:
    """``associations`` at once, ``images`` over each; PDUs as long as the peer takes, up to
    ``max_pdu_bytes``. ``first``: number of the first image, none of which may come twice."""

    port: int
    ae_title: str
    associations: int
    images: int
    first: int
    max_pdu_bytes: int
    template: Template


@dataclass(frozen=True, kw_only=True)
class Sent:
    """``seconds``: from the first byte of data to the last answer; ``statuses``: how often each
    was answered; ``connect_seconds``: from the first connection to the last acceptance."""

    seconds: float
    connect_seconds: float
    statuses: dict[int, int]


def placeholder_uid() -> str:
    """A UID as long as those that replace it."""
    return numbered_uid(0)


def numbered_uid(number: int) -> str:
    """The UID of an image."""
    return f"{_PREFIX}{10**19 + number}"


class Association:
    """One connection and the PDUs that go over it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.statuses: Counter[int] = Counter()
        self._socket = socket.create_connection(("127.0.0.1", order.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(
            association_request(
                "SENDER",
                order.ae_title,
                sop_class_uid=order.template.sop_class_uid,
                transfer_syntax_uid=order.template.transfer_syntax_uid,
            )
        )
        kind, content = self._read_pdu()
        if kind != 0x02:
            raise SystemExit(f"the association was not accepted: PDU type {kind}")
        at = content.index(b"\x51\x00\x00\x04")
        theirs = int.from_bytes(content[at + 4 : at + 8], "big")
        self.pdu_bytes = min(theirs or order.max_pdu_bytes, order.max_pdu_bytes)

    def send(self, first: int, tail: bytes, head: bytes) -> None:
        """All images, each after the answer to the one before."""
        template = self._order.template
        for number in range(first, first + self._order.images):
            uid = numbered_uid(number)
            request = store_command(uid, sop_class_uid=template.sop_class_uid)
            command = p_data(request, command=True, last=True)
            fresh = head.replace(template.uid.encode(), uid.encode())
            self._socket.sendall(command + p_data(fresh, command=False, last=not tail))
            self._socket.sendall(tail)
            self.statuses[status_in(self._read_pdu()[1])] += 1
        self._socket.sendall(RELEASE)
        self._read_pdu()
        self._socket.close()

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._read(6))
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self._socket.recv(count - len(received))
            if not more:
                raise SystemExit("the peer closed the connection")
            received += more
        return received


def tail_of(data_set: bytes, pdu_bytes: int) -> tuple[bytes, bytes]:
    """What the first fragment holds, and the PDUs of all other fragments, which are shared."""
    size = pdu_bytes - 6
    rest = range(size, len(data_set), size)
    pdus = [
        p_data(data_set[at : at + size], command=False, last=at + size >= len(data_set))
        for at in rest
    ]
    return data_set[:size], b"".join(pdus)


def send(order: Order) -> Sent:
    """Open all associations, then send over all of them at once."""
    begun = time.perf_counter()
    associations: list[Association] = []
    opening = [
        threading.Thread(target=lambda: associations.append(Association(order)))
        for _ in range(order.associations)
    ]
    _run(opening)
    if len(associations) < order.associations:
        raise SystemExit("not every association was accepted")
    connect_seconds = time.perf_counter() - begun
    head, tail = tail_of(order.template.data_set.read_bytes(), associations[0].pdu_bytes)
    threads = [
        threading.Thread(
            target=association.send, args=(order.first + at * order.images, tail, head)
        )
        for at, association in enumerate(associations)
    ]
    begun = time.perf_counter()
    _run(threads)
    seconds = time.perf_counter() - begun
    statuses = sum((association.statuses for association in associations), Counter[int]())
    return Sent(seconds=seconds, connect_seconds=connect_seconds, statuses=dict(statuses))


def _run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """One order in, one result out."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    values = json.load(sys.stdin)
    template = values.pop("template")
    template["data_set"] = Path(template["data_set"])
    json.dump(asdict(send(Order(**values, template=Template(**template)))), sys.stdout)


if __name__ == "__main__":
    main()
