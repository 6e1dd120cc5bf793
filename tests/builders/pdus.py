"""Protocol data units and command sets, byte by byte."""

from __future__ import annotations

import struct

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
RELEASE = struct.pack(">BxL", 0x05, 4) + bytes(4)
RELEASED = struct.pack(">BxL", 0x06, 4) + bytes(4)
ABORT = struct.pack(">BxL", 0x07, 4) + bytes(4)
_MAX_PDU = 16384


def association_request(
    calling_ae_title: str = "RAW",
    called_ae_title: str = "BONEAGE",
    *,
    sop_class_uid: str = CR_IMAGE,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context, 1 (PS3.8 9.3.2)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling_ae_title, called_ae_title
    context = build_context(sop_class_uid, transfer_syntax_uid)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = _MAX_PDU
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def pdv(fragment: bytes, *, command: bool, last: bool, reserved_bits: int = 0) -> bytes:
    """A presentation data value item of context 1 (PS3.8 9.3.5.1, E.2)."""
    control = command | last << 1 | reserved_bits << 2
    return struct.pack(">LBB", len(fragment) + 2, 1, control) + fragment


def p_data_of(*items: bytes) -> bytes:
    """A P-DATA-TF (PS3.8 9.3.5)."""
    content = b"".join(items)
    return struct.pack(">BxL", 0x04, len(content)) + content


def p_data(fragment: bytes, *, command: bool, last: bool) -> bytes:
    """A P-DATA-TF with one fragment."""
    return p_data_of(pdv(fragment, command=command, last=last))


def store_command(uid: str = "1.2.3.4", *, sop_class_uid: str = CR_IMAGE) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1)."""
    elements = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, _even(sop_class_uid)),
            (0x0100, b"\x01\x00"),
            (0x0110, b"\x01\x00"),
            (0x0700, b"\x00\x00"),
            (0x0800, b"\x01\x00"),
            (0x1000, _even(uid)),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def status_in(pdu: bytes) -> int:
    """Status (0000,0900) of an answer that came in one PDU (PS3.7 C)."""
    at = pdu.index(struct.pack("<HHL", 0, 0x0900, 2))
    return int.from_bytes(pdu[at + 8 : at + 10], "little")


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)
