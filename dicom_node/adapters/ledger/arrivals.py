"""How a kept instance enters the ledger, inside an open transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, update

from dicom_node.adapters.ledger import jobs as steps
from dicom_node.adapters.ledger import rows
from dicom_node.adapters.ledger.jobs import JournalLine
from dicom_node.adapters.ledger.outbox import note_change
from dicom_node.adapters.ledger.schema import exams, instances
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import UNKNOWN_SENDER, Instance, Outcome, Receipt
from dicom_node.domain.job import Stage

_NEW_INSTANCE = insert(instances).returning(instances.c.instance_id)
_NEW_EXAM = insert(exams).returning(exams.c.exam_id)


def enter(connection: Connection, instance: Instance, *, now: datetime) -> tuple[int, Receipt]:
    """The exam of an instance, new unless this content came before, and what it was. Other content
    under a UID that is known waits, parked, for a person."""
    known = rows.exams_by_content(connection, instance.sop_instance_uid)
    if instance.content_sha256 in known:
        exam_id = known[instance.content_sha256]
        _is_here_again(connection, instance)
        if _fill_in_sender(connection, instance):
            note_change(connection, exam_id, now=now)
        steps.queue_again(connection, exam_id, now=now)
        return exam_id, Receipt.DUPLICATE
    exam_id = _new_exam(connection, instance)
    if not known:
        steps.enqueue(connection, exam_id, Stage.SCREEN, now=now)
        steps.note(connection, exam_id, JournalLine.RECEIVED, now=now)
        return exam_id, Receipt.NEW
    fault = Fault.CONFLICTING_CONTENT
    steps.enqueue(connection, exam_id, Stage.SCREEN, now=now, fault=fault)
    others = ",".join(str(other) for other in sorted(known.values()))
    steps.note(connection, exam_id, JournalLine.CONFLICT_RECEIVED, now=now, with_exam=others)
    return exam_id, Receipt.CONFLICT


def _new_exam(connection: Connection, instance: Instance) -> int:
    arrived = connection.execute(_NEW_INSTANCE, rows.instance_values(instance))
    made = {"instance_id": arrived.scalar_one(), "outcome": Outcome.PENDING}
    exam_id: int = connection.execute(_NEW_EXAM, made).scalar_one()
    return exam_id


def _is_here_again(connection: Connection, instance: Instance) -> None:
    """An image that was purged may be used again, until the next purge."""
    connection.execute(
        update(instances)
        .where(
            instances.c.sop_instance_uid == instance.sop_instance_uid,
            instances.c.content_sha256 == instance.content_sha256,
            instances.c.purged_at.is_not(None),
        )
        .values(purged_at=None)
    )


def _fill_in_sender(connection: Connection, instance: Instance) -> bool:
    """An object that a crash left without its sender gets it when it is sent again; whether it
    did."""
    filled = connection.execute(
        update(instances)
        .where(
            instances.c.sop_instance_uid == instance.sop_instance_uid,
            instances.c.content_sha256 == instance.content_sha256,
            instances.c.institution_id == UNKNOWN_SENDER,
        )
        .values(
            institution_id=instance.institution_id,
            calling_ae_title=instance.calling_ae_title,
            peer_address=instance.peer_address,
        )
    )
    return filled.rowcount > 0
