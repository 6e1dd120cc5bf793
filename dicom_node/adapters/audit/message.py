"""An audit message as XML (PS3.15 A.5.1.1) and as a syslog message (RFC 5424, PS3.15 A.6)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from dicom_node.domain.audit import AuditMessage, AuditObject, Code, EventOutcome, Participant

BOM = b"\xef\xbb\xbf"
"""Begins a MSG in UTF-8 (RFC 5424 6.4)."""
MESSAGE_ID = "IHE+RFC-3881"
_APPLICATION_SERVER = "4"
"""AuditSourceTypeCode (A.5.1.2.1)."""
_FACILITY = 10
"""Security and authorisation messages (A.6)."""
_NOTICE, _WARNING = 5, 4
_MAX_TEXT = 1024
"""Receivers must take 32,768 octets (A.6); a hostile header could have longer texts."""
_UNWRITABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 forbids, and line ends: a message is one line."""
_NO_TOKEN = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who reports: AuditSourceID and AuditEnterpriseSiteID, and HOSTNAME of the syslog header."""

    node: str
    region: str
    host: str


def as_syslog(message: AuditMessage, origin: Origin, *, sequence: int, process_id: int) -> bytes:
    """SYSLOG-MSG in UTF-8, without line end. ``sequence``: its number, by which a repository sees
    that one is missing (RFC 5424 7.3.1)."""
    severity = _NOTICE if message.outcome is EventOutcome.SUCCESS else _WARNING
    header = (
        f"<{_FACILITY * 8 + severity}>1 {_time(message.at)} {_token(origin.host, 255)} "
        f"{_token(origin.node, 48)} {process_id} {MESSAGE_ID} "
        f'[meta sequenceId="{sequence}"] '
    )
    return header.encode("ascii") + BOM + as_xml(message, origin)


def as_xml(message: AuditMessage, origin: Origin) -> bytes:
    """An AuditMessage document in UTF-8, on one line."""
    root = ET.Element("AuditMessage")
    _add_event(root, message)
    for participant in message.participants:
        _add_participant(root, participant)
    _add_source(root, origin)
    for about in message.objects:
        _add_object(root, about)
    document: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>{document}'.encode()


def _add_event(root: ET.Element, message: AuditMessage) -> None:
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=_time(message.at),
        EventOutcomeIndicator=message.outcome,
    )
    _add_code(event, "EventID", message.event)
    for kind in message.types:
        _add_code(event, "EventTypeCode", kind)
    if message.description:
        ET.SubElement(event, "EventOutcomeDescription").text = _text(message.description)


def _add_participant(root: ET.Element, participant: Participant) -> None:
    added = ET.SubElement(
        root,
        "ActiveParticipant",
        UserID=_text(participant.user_id),
        UserIsRequestor=str(participant.requestor).lower(),
    )
    _set(added, "AlternativeUserID", participant.alternative_user_id)
    _set(added, "UserName", participant.user_name)
    if participant.address:
        _set(added, "NetworkAccessPointID", participant.address)
        added.set("NetworkAccessPointTypeCode", participant.address_type)
    if participant.role is not None:
        _add_code(added, "RoleIDCode", participant.role)
    if participant.media_type is not None:
        media = ET.SubElement(added, "MediaIdentifier")
        _add_code(media, "MediaType", participant.media_type)


def _add_source(root: ET.Element, origin: Origin) -> None:
    source = ET.SubElement(
        root,
        "AuditSourceIdentification",
        AuditEnterpriseSiteID=_text(origin.region),
        AuditSourceID=_text(origin.node),
    )
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})


def _add_object(root: ET.Element, about: AuditObject) -> None:
    added = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_text(about.object_id),
        ParticipantObjectTypeCode=about.type_code,
        ParticipantObjectTypeCodeRole=about.role,
    )
    _add_code(added, "ParticipantObjectIDTypeCode", about.id_type)
    ET.SubElement(added, "ParticipantObjectName").text = _text(about.name)
    for name, value in about.details.items():
        encoded = base64.b64encode(value[:_MAX_TEXT].encode("utf-8", "replace")).decode()
        ET.SubElement(added, "ParticipantObjectDetail", type=_text(name), value=encoded)
    if about.sop_classes:
        described = ET.SubElement(added, "ParticipantObjectDescription")
        for uid, count in about.sop_classes.items():
            ET.SubElement(described, "SOPClass", UID=_text(uid), NumberOfInstances=str(count))


def _add_code(parent: ET.Element, name: str, code: Code) -> None:
    values = {
        "csd-code": code.value,
        "codeSystemName": code.scheme,
        "originalText": code.meaning,
    }
    ET.SubElement(parent, name, values)


def _set(element: ET.Element, name: str, value: str) -> None:
    if value:
        element.set(name, _text(value))


def _text(value: str) -> str:
    return _UNWRITABLE.sub("\ufffd", value[:_MAX_TEXT])


def _token(value: str, length: int) -> str:
    """PRINTUSASCII of the syslog header; ``-`` for nothing (RFC 5424 6)."""
    return _NO_TOKEN.sub("?", value)[:length] or "-"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
