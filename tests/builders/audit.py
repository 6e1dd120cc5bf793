"""Audit messages of every kind, and the schema that they must keep."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxml import etree

from dicom_node.adapters.audit import Origin
from dicom_node.domain import audit
from dicom_node.domain.audit import (
    Action,
    Application,
    Arrival,
    AuditMessage,
    Operator,
    Peer,
    Subject,
)
from dicom_node.domain.audit_retention import deleted, exported

AT = datetime(2026, 3, 2, 14, 5, 11, 204518, tzinfo=UTC)
NODE = Application(node="boneage-node", ae_title="BONEAGE", process_id=412, host="node.example")
ORIGIN = Origin(node="boneage-node", region="sp", host="node.example")
XRAY = Peer(ae_title="XRAY", address="192.0.2.7")
PACS = Peer(ae_title="PACS", address="pacs.example")
PERSON = Operator(login="maria", host="node.example")
CHILD = Subject(study_instance_uid="1.2.3", patient_id="ZZCANARY", patient_name="ZZCANARY^TEST")
CR = "1.2.840.10008.5.1.4.1.1.1"
SR = "1.2.840.10008.5.1.4.1.1.88.22"

_SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[1] / "audit_message.rng"))


def arrival(*, subject: Subject = CHILD, stored: bool = True) -> Arrival:
    """A CR image from XRAY."""
    return Arrival(peer=XRAY, subject=subject, sop_class_uid=CR, stored=stored)


def every_kind() -> dict[str, AuditMessage]:
    """One message of each kind that the node records."""
    [received] = audit.received([arrival(), arrival()], NODE, AT)
    [refused] = audit.received([arrival(stored=False)], NODE, AT)
    [unreadable] = audit.received([arrival(subject=Subject(), stored=False)], NODE, AT)
    details = {"Step": "job discard 7", "Reason": "sent twice — ação"}
    return {
        "start": audit.started(NODE, PERSON, AT),
        "stop": audit.stopped(NODE, PERSON, AT),
        "received": received,
        "received and refused": refused,
        "received and not readable": unreadable,
        "sent": audit.sent(CHILD, [SR, SR], NODE, PACS, AT),
        "sent and refused": audit.sent(CHILD, [SR], NODE, PACS, AT, refused=True),
        "stranger": audit.peer_refused(XRAY, "association rejected", NODE, AT),
        "no certificate": audit.peer_refused(
            Peer(ae_title="", address="2001:db8::7"), "TLS handshake failed", NODE, AT
        ),
        "configuration": audit.configuration_changed(
            audit.NETWORK_CONFIGURATION, "file:///etc/node.toml", "network", NODE, AT
        ),
        "model": audit.model_changed("file:///models/boneage-1", NODE, AT),
        "looked at": audit.accessed(
            Action.READ, CHILD, PERSON, NODE, AT, details={"Step": "exam show 7"}
        ),
        "operated": audit.accessed(Action.UPDATE, CHILD, PERSON, NODE, AT, details=details),
        "not allowed": audit.accessed(
            Action.UPDATE, CHILD, PERSON, NODE, AT, details=details, failed=True
        ),
        "purged": deleted(
            CHILD, [CR], NODE, AT, operator=None, details={"Purged": "image", "Exam": "7"}
        ),
        "purged by a person": deleted(
            Subject(), [CR], NODE, AT, operator=PERSON, details={"Purged": "image", "Exam": "7"}
        ),
        "archived": exported(CHILD, [SR], NODE, AT, operator=None, uri="s3://bone-age/sp/"),
        "archived by a person": exported(
            CHILD, [SR, SR], NODE, AT, operator=PERSON, uri="s3://bone-age/sp/"
        ),
        "read": audit.audit_log_used("file:///data/audit", PERSON, NODE, AT),
    }


def schema_errors(xml: bytes) -> list[str]:
    """What is wrong with an audit message by PS3.15 A.5.1.1; nothing for a right one."""
    _SCHEMA.validate(etree.fromstring(xml))
    return [str(error.message) for error in _SCHEMA.error_log]


def xml_of(line: bytes) -> bytes:
    """The message in a syslog line."""
    return line[line.index(b"<?xml") :]


def parsed(line: bytes) -> Any:
    """The AuditMessage element of a syslog line."""
    return etree.fromstring(xml_of(line))
