"""What reads bytes of strangers, as functions of those bytes: for atheris and for its findings.

A target raises where the code breaks its word: an error that is not documented, or too much time.
`make fuzz` tries each for a while; what was ever found is tried again by `test_fuzz_seeds.py`.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydicom.pixels.decoders.base import get_decoder
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation

import inference.decode
from dicom_node.domain.errors import NodeError
from dicom_node.headers import read_header, read_identity
from dicom_node.scp import fast_path
from dicom_node.scp.guard import GuardedSocket, LimitExceeded, Limits, guard_messages
from dicom_node.scp.server import _application_entity
from dicom_node.settings import Settings
from inference.codestream import frame_size
from inference.decode import UnreadablePixels, decode

SEEDS = Path(__file__).parent / "seeds"
MAX_BYTES = 32 * 1024
MAX_SECONDS = 5.0
"""Of processor time, for inputs of that length: honest ones take milliseconds."""
_CONTEXT = build_context("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1")
_LIMITS = Limits(pdu_bytes=16 * 1024, message_bytes=64 * 1024, pdu_seconds=5.0)
_MEMORY = Path("/dev/shm")
_FEW_PIXELS = 1 << 20


def pdus(data: bytes) -> None:
    """The bytes of one connection: the guard, pynetdicom's decoding and its state machine (PS3.8
    9.2), with and without the fast path. The association ends by an event, by a limit or, in
    pynetdicom's reader, by an error."""
    for fast in (True, False):
        _connection(data, fast=fast)


def _connection(data: bytes, *, fast: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, _working_folder() as folder:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        association = _association()
        if fast:
            fast_path.attach(association, ours, _LIMITS)
        else:
            association.set_socket(GuardedSocket(association, ours, _LIMITS))
        files = guard_messages(association)
        with contextlib.suppress(LimitExceeded):
            _react(association)
        for file in list(files):
            file.remove()
        _handle(association)
        assert list(folder.iterdir()) == [], "a file is left"


def messages(data: bytes) -> None:
    """A command set and a data set, their lengths before them, as P-DATA (PS3.7 6.3, PS3.8 E)."""
    with _working_folder() as folder:
        association = _association()
        files = guard_messages(association)
        while len(data) > 3:
            control, length = struct.unpack_from(">BH", data)
            primitive = P_DATA()
            values: Any = [
                [1, bytes([control & 3]) + data[3 : 3 + length]]
            ]  # typed as tuples there
            primitive.presentation_data_value_list = values
            association.dimse.receive_primitive(primitive)
            data = data[3 + length :]
            if association.dul.event_queue.qsize():
                break  # an A-ABORT
        for file in list(files):
            file.remove()
        _handle(association)
        assert list(folder.iterdir()) == [], "a file is left"


def identity(data: bytes) -> None:
    """The head of a received file."""
    with _file(data) as path, contextlib.suppress(NodeError):
        read_identity(path)


def header(data: bytes) -> None:
    """The header of a received file."""
    with _file(data) as path, contextlib.suppress(NodeError):
        read_header(path)


def codestream(data: bytes) -> None:
    """The size that a compressed frame claims."""
    with contextlib.suppress(ValueError, struct.error, IndexError):
        frame_size(data)


def pixels(data: bytes) -> None:
    """All that decoding does but the codecs, which are C and have a process of their own."""

    def decoder(syntax: Any) -> Any:
        if str(syntax) in inference.decode._CODED:
            raise UnreadablePixels("the codec is not tried here")
        return get_decoder(syntax)

    with (
        _file(data) as path,
        patch.object(inference.decode, "get_decoder", decoder),
        patch.object(inference.decode, "MAX_PIXELS", _FEW_PIXELS),
        contextlib.suppress(UnreadablePixels),
    ):
        decode(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (pdus, messages, identity, header, codestream, pixels)
}


def check(target: Callable[[bytes], None], data: bytes) -> None:
    """Run a target, and see that it takes no longer than such an input may."""
    begun = time.process_time()
    target(data[:MAX_BYTES])
    seconds = time.process_time() - begun
    assert seconds < MAX_SECONDS, f"{seconds:.1f} s for {len(data)} bytes"


def _association() -> Association:
    association = Association(_application_entity(Settings()), "acceptor")
    association._accepted_cx = {1: _CONTEXT}
    _CONTEXT.context_id, _CONTEXT.result = 1, 0
    association.requestor.address_info = AddressInformation("127.0.0.1", 104)
    association.acceptor.maximum_length = _LIMITS.pdu_bytes
    return association


def _react(association: Association) -> None:
    """What pynetdicom's reader does with each PDU, without its thread and timers; an association
    that is asked for is accepted."""
    dul = association.dul
    machine = dul.state_machine
    machine.current_state = "Sta2"
    with contextlib.suppress(_EndOfReader):
        while dul.socket is not None and dul.socket.socket is not None:
            dul.event_queue.queue.clear()
            dul._read_pdu_data()
            event = dul.event_queue.get_nowait()
            try:
                machine.do_action(event)
            except Exception as error:  # `has_no_peer` sees the end of the thread
                raise _EndOfReader from error
            if machine.current_state == "Sta3":
                machine.current_state = "Sta6"
            if event in {"Evt17", "Evt19"}:
                return


class _EndOfReader(Exception):
    """An error in pynetdicom's own code ended its thread."""


def _handle(association: Association) -> None:
    """Requests that came through, as the handler's end leaves them."""
    with contextlib.suppress(queue.Empty):
        while True:
            _, message = association.dimse.msg_queue.get_nowait()
            path = getattr(message, "_dataset_path", None)
            if path is not None:
                Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def _working_folder() -> Iterator[Path]:
    before = tempfile.tempdir
    parent = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    parent = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.NamedTemporaryFile(dir=parent, suffix=".dcm", buffering=0) as file:
        file.write(data)
        yield Path(file.name)
