"""A modality that costs next to nothing: one association on a plain socket.

The load and the node share a machine, so the sender must not be what is measured.
"""

from __future__ import annotations

import socket
import struct

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

SOP_CLASSES = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation)
_VERIFICATION = UID("1.2.840.10008.1.1")
_CONTEXT_IDS = {uid: 2 * n + 1 for n, uid in enumerate((*SOP_CLASSES, _VERIFICATION))}
_MAX_PDU = 131_072
_PDV_HEAD = 6
_ACCEPTED, _P_DATA, _RELEASE_RQ = 0x02, 0x04, 0x05
_C_STORE_RQ, _C_ECHO_RQ = 0x0001, 0x0030
_NO_DATA_SET, _DATA_SET = 0x0101, 0x0001
_STATUS = 0x0900


class Modality:
    """An association with a node on loopback. Every method raises ``OSError`` when the peer
    rejects, is silent for too long or goes away."""

    def __init__(self, port: int, calling_ae_title: str, *, timeout_seconds: float = 60.0) -> None:
        self._messages = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(_request(calling_ae_title))
            kind, content = self._read_pdu()
            if kind != _ACCEPTED:
                raise ConnectionRefusedError(f"the association got PDU {kind:02X} as its answer")
        except OSError:
            self._socket.close()
            raise
        self._fragment = min(_maximum_length(content) or _MAX_PDU, _MAX_PDU) - _PDV_HEAD

    def store(self, sop_class_uid: str, sop_instance_uid: str, data_set: bytes | bytearray) -> int:
        """C-STORE; the status of the response (PS3.7 9.3.1)."""
        message = self._store_message(sop_class_uid, sop_instance_uid, data_set)
        self._socket.sendall(message)
        return self._status()

    def break_off(self, sop_class_uid: str, sop_instance_uid: str, data_set: bytearray) -> None:
        """Send half an object, then close the connection as a station whose cable is pulled."""
        message = self._store_message(sop_class_uid, sop_instance_uid, data_set)
        self._socket.sendall(message[: len(message) // 2])
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def echo(self) -> int:
        """C-ECHO; the status of the response (PS3.7 9.3.5)."""
        self._socket.sendall(self._command(_VERIFICATION, _C_ECHO_RQ, _NO_DATA_SET))
        return self._status()

    def release(self) -> None:
        """Release the association and close the connection."""
        try:
            self._socket.sendall(struct.pack(">BxLL", _RELEASE_RQ, 4, 0))
            self._read_pdu()
        finally:
            self._socket.close()

    def close(self) -> None:
        """Close the connection, whatever the peer thinks of it."""
        self._socket.close()

    def _store_message(self, sop_class: str, instance: str, data_set: bytes | bytearray) -> bytes:
        context = _CONTEXT_IDS[UID(sop_class)]
        parts = [self._command(sop_class, _C_STORE_RQ, _DATA_SET, instance)]
        for begin in range(0, len(data_set), self._fragment):
            fragment = data_set[begin : begin + self._fragment]
            last = begin + self._fragment >= len(data_set)
            parts.append(_p_data(context, fragment, command=False, last=last))
        return b"".join(parts)

    def _command(self, sop_class: str, command: int, data_set: int, instance: str = "") -> bytes:
        self._messages = self._messages % 0xFFFF + 1
        elements = [
            (0x0002, _padded(sop_class)),
            (0x0100, struct.pack("<H", command)),
            (0x0110, struct.pack("<H", self._messages)),
            *([(0x0700, struct.pack("<H", 0))] if instance else []),
            (0x0800, struct.pack("<H", data_set)),
            *([(0x1000, _padded(instance))] if instance else []),
        ]
        encoded = b"".join(struct.pack("<HHL", 0, e, len(v)) + v for e, v in elements)
        length = struct.pack("<HHLL", 0, 0, 4, len(encoded))
        return _p_data(_CONTEXT_IDS[UID(sop_class)], length + encoded, command=True, last=True)

    def _status(self) -> int:
        kind, content = self._read_pdu()
        if kind != _P_DATA:
            self.close()
            raise ConnectionAbortedError(f"PDU {kind:02X} came instead of a response")
        return _status_of(content[_PDV_HEAD:])

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._read(6))
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            more = self._socket.recv(count - len(received))
            if not more:
                self.close()
                raise ConnectionResetError("the peer closed the connection")
            received += more
        return bytes(received)


def _request(calling_ae_title: str) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling_ae_title, "BONEAGE"
    contexts = []
    for sop_class, context_id in _CONTEXT_IDS.items():
        context = build_context(sop_class, ExplicitVRLittleEndian)
        context.context_id = context_id
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = _MAX_PDU
    implementation.implementation_class_uid = UID("1.2.826.0.1.3680043.2.1")
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _maximum_length(accepted: bytes) -> int:
    """Of the user information (item 51H, PS3.8 D.1) of an A-ASSOCIATE-AC without its header."""
    at = 68
    while at + 4 <= len(accepted):
        kind, length = struct.unpack_from(">BxH", accepted, at)
        if kind == 0x50:
            at += 4
        elif kind == 0x51:
            return int(struct.unpack_from(">L", accepted, at + 4)[0])
        else:
            at += 4 + length
    return 0


def _p_data(context: int, fragment: bytes | bytearray, *, command: bool, last: bool) -> bytes:
    """A P-DATA-TF with one fragment (PS3.8 9.3.5, E.2)."""
    item = struct.pack(">LBB", len(fragment) + 2, context, command | last << 1)
    return struct.pack(">BxL", _P_DATA, len(item) + len(fragment)) + item + fragment


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _status_of(command: bytes) -> int:
    """(0000,0900) of a command set, Implicit VR Little Endian (PS3.7 6.3.1)."""
    at = 0
    while at + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHL", command, at)
        if element == _STATUS:
            return int(struct.unpack_from("<H", command, at + 8)[0])
        at += 8 + length
    raise ConnectionAbortedError("the response has no status")
