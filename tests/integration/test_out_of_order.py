"""PDUs in an order, or of a content, that the standard does not have: the association ends, and
nothing else."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.pdus import (
    ABORT,
    RELEASE,
    association_request,
    p_data,
    p_data_of,
    pdv,
    store_command,
)
from tests.integration.peers import RunningReceiver, dcmtk, wait_until
from tests.peers.raw import connect, read_pdu

TO_NODE = ("-aec", "BONEAGE")


def with_context(pdu: bytes, context_id: int) -> bytes:
    """A P-DATA-TF with another presentation context id."""
    return pdu[:10] + bytes([context_id]) + pdu[11:]


BEGUN = [
    association_request(),
    p_data(store_command(), command=True, last=True),
    p_data(b"x" * 100, command=False, last=False),
]
OUT_OF_ORDER = {
    "data before an association": [p_data(b"x", command=False, last=True)],
    "release before an association": [RELEASE],
    "a second request": [association_request(), association_request()],
    "data of no command": [association_request(), p_data(b"x" * 100, command=False, last=True)],
    "an unknown context": [
        association_request(),
        with_context(p_data(store_command(), command=True, last=True), 99),
        with_context(p_data(b"x" * 100, command=False, last=True), 99),
    ],
    "release within an object": [
        association_request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        RELEASE,
    ],
    "abort within an object": [
        association_request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        ABORT,
    ],
    "a command within an object": [
        association_request(),
        p_data(store_command(), command=True, last=True),
        p_data(b"x" * 100, command=False, last=False),
        p_data(store_command("1.2.3.5"), command=True, last=True),
        p_data(b"x" * 100, command=False, last=True),
    ],
    "a command that is none": [association_request(), p_data(b"x" * 100, command=True, last=True)],
    "an empty command": [association_request(), p_data(b"", command=True, last=True)],
    "a fragment without a header": [association_request(), struct.pack(">BxLL", 0x04, 4, 0)],
    "a fragment longer than its PDU": [
        association_request(),
        struct.pack(">BxLL", 0x04, 6, 9999) + b"xx",
    ],
    "an empty PDU": [association_request(), struct.pack(">BxL", 0x04, 0)],
    "a request of nothing": [struct.pack(">BxL", 0x01, 0)],
    "a request cut short": [struct.pack(">BxL", 0x01, 68) + bytes(68)],
    "a fragment without a header within an object": [*BEGUN, struct.pack(">BxLL", 0x04, 4, 0)],
    "a fragment longer than its PDU within an object": [
        *BEGUN,
        struct.pack(">BxLLBB", 0x04, 8, 9999, 1, 0) + b"xx",
    ],
    "half a fragment's header within an object": [*BEGUN, p_data_of(b"\0\0\0")],
    "a fragment and half a header within an object": [
        *BEGUN,
        p_data_of(pdv(b"x" * 100, command=False, last=False), b"\0\0\0"),
    ],
    "an empty PDU within an object": [*BEGUN, p_data_of()],
    "an unknown PDU within an object": [*BEGUN, struct.pack(">BxL", 0x55, 4) + bytes(4)],
    "a request within an object": [*BEGUN, association_request()],
    "an unknown PDU": [association_request(), struct.pack(">BxL", 0x55, 4) + bytes(4)],
}


@pytest.mark.parametrize("pdus", OUT_OF_ORDER.values(), ids=list(OUT_OF_ORDER))
def test_pdus_out_of_order_end_the_association_and_nothing_else(
    impatient: RunningReceiver, pdus: list[bytes]
) -> None:
    """No half object is acknowledged, no file, thread or place is left."""
    before = threading.active_count()
    with connect(impatient) as connection, contextlib.suppress(OSError):
        for pdu in pdus:
            connection.sendall(pdu)
            if pdu == association_request():
                read_pdu(connection)
        connection.shutdown(socket.SHUT_WR)
        while read_pdu(connection)[0]:
            pass
    assert impatient.stored == []
    wait_until(lambda: threading.active_count() <= before and impatient.incoming == [], seconds=30)
    assert "Success" in dcmtk("echoscu", "-v", *TO_NODE, *impatient.address)


SESSION = association_request() + p_data(store_command(), command=True, last=True)
SESSION += p_data(b"x" * 500, command=False, last=True) + RELEASE


# pynetdicom's reader ends with an error where data comes before its own answer was sent
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SESSION) - 1), st.integers(0, 255)), min_size=1, max_size=12
    ),
    cut_at=st.integers(1, len(SESSION)),
)
def test_mutated_sessions_leave_a_node_that_serves(
    impatient: RunningReceiver, changes: list[tuple[int, int]], cut_at: int
) -> None:
    mutated = bytearray(SESSION)
    for position, value in changes:
        mutated[position] = value
    with connect(impatient) as connection, contextlib.suppress(OSError):
        connection.sendall(mutated[:cut_at])
        connection.shutdown(socket.SHUT_WR)
        while read_pdu(connection)[0]:
            pass
    wait_until(lambda: impatient.receiver.open_associations == 0, seconds=30)
    wait_until(lambda: impatient.incoming == [])
    assert impatient.receiver._listeners[0]._thread is not None
    assert impatient.receiver._listeners[0]._thread.is_alive()
