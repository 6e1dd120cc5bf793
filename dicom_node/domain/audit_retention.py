"""What the audit trail says of objects that leave the node by age (PS3.15 A.5.3.5, A.5.3.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from dicom_node.domain.audit import (
    SOURCE,
    Action,
    Application,
    AuditMessage,
    Code,
    EventOutcome,
    Operator,
    Participant,
    Subject,
    objects_of,
)

STUDY_DELETED = Code(value="110105", meaning="DICOM Study Deleted")
EXPORT = Code(value="110106", meaning="Export")
DESTINATION_MEDIA = Code(value="110154", meaning="Destination Media")
_URI = Code(value="110037", meaning="URI")
"""PS3.16 CID 405."""


def deleted(
    subject: Subject,
    sop_classes: Sequence[str],
    application: Application,
    at: datetime,
    *,
    operator: Operator | None,
    details: Mapping[str, str],
) -> AuditMessage:
    """DICOM Study Deleted: what this node held of a study (A.5.3.8). ``operator``: who asked for
    it; None for the node's own housekeeping."""
    return AuditMessage(
        event=STUDY_DELETED,
        action=Action.DELETE,
        outcome=EventOutcome.SUCCESS,
        at=at,
        participants=_who(application, operator),
        objects=objects_of(subject, sop_classes, details),
    )


def exported(
    subject: Subject,
    sop_classes: Sequence[str],
    application: Application,
    at: datetime,
    *,
    operator: Operator | None,
    uri: str,
) -> AuditMessage:
    """Export, to the archive at ``uri`` (A.5.3.5)."""
    archive = Participant(user_id=uri, requestor=False, role=DESTINATION_MEDIA, media_type=_URI)
    return AuditMessage(
        event=EXPORT,
        action=Action.READ,
        outcome=EventOutcome.SUCCESS,
        at=at,
        participants=(*_who(application, operator, role=SOURCE), archive),
        objects=objects_of(subject, sop_classes),
    )


def _who(
    application: Application, operator: Operator | None, role: Code | None = None
) -> tuple[Participant, ...]:
    node = application.taking_part(requestor=operator is None, role=role)
    return (node,) if operator is None else (operator.taking_part(role), node)
