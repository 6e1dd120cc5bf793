"""The ledger's tables. The database itself enforces what must never be broken.

Closed sets (states, stages, outcomes) are CHECKs generated from the enums of the domain. Open
vocabularies that grow with every rule (reasons, faults, journal lines) are plain text, so that a
new word needs no migration. A change here needs a new revision in ``migrations/versions``; a test
compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Date,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from dicom_node.domain.commitment import Evidence
from dicom_node.domain.delivery import ReportKind, Verdict
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Laterality, Outcome, Sex
from dicom_node.domain.job import JobState, Stage


class UtcSeconds(TypeDecorator[datetime]):
    """Aware UTC in Python, seconds since 1970 in the database; exact to the microsecond."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        """Raises ``ValueError`` for a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware times only")
        return value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:
        """Aware UTC, None for NULL."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


def _words(vocabulary: type[StrEnum], *, name: str, closed: bool = True) -> Enum:
    """Text of one of the enum's values; ``closed`` adds the CHECK."""
    return Enum(
        vocabulary,
        name=name,
        native_enum=False,
        create_constraint=closed,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def state_is(*states: JobState) -> str:
    """SQL condition on a job's state, written out: bound parameters cannot use partial indexes."""
    if len(states) == 1:
        return f"state = '{states[0].value}'"
    return "state IN ({})".format(", ".join(f"'{state.value}'" for state in states))


QUEUED = state_is(JobState.QUEUED)
LEASED = state_is(JobState.LEASED)
WAITS_FOR_CENTRE = "change > forwarded_change AND fault IS NULL"
OPEN = state_is(JobState.QUEUED, JobState.LEASED, JobState.PARKED)
KEPT = "purged_at IS NULL"
NOT_ARCHIVED = "archived_at IS NULL"

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

instances = Table(
    "instances",
    metadata,
    Column("instance_id", Integer, primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("content_sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("peer_address", String(64), nullable=False),
    Column("institution_id", String(64), nullable=False),
    Column("received_at", UtcSeconds, nullable=False),
    Column("archived_at", UtcSeconds),
    Column("purged_at", UtcSeconds),
    UniqueConstraint("sop_instance_uid", "content_sha256", name="uq_instances_content"),
    CheckConstraint("length(content_sha256) = 64", name="hash_length"),
    CheckConstraint("size_bytes >= 0", name="size"),
    Index("instances_by_arrival", "received_at"),
    Index("instances_kept", "instance_id", sqlite_where=text(KEPT)),
    sqlite_autoincrement=True,
)

exams = Table(
    "exams",
    metadata,
    Column("exam_id", Integer, primary_key=True),
    Column("instance_id", ForeignKey("instances.instance_id"), nullable=False, unique=True),
    Column("study_instance_uid", String(64), nullable=False, server_default=""),
    Column("outcome", _words(Outcome, name="outcome"), nullable=False),
    Column("reason", String(32)),
    Column("sex", _words(Sex, name="sex")),
    Column("laterality", _words(Laterality, name="laterality")),
    Column("view_position", String(64)),
    Column("chronological_age_months", Float),
    Column("notes", JSON, nullable=False, server_default="[]"),
    Column("patient_pseudonym", String(64)),
    Column("study_date", Date),
    CheckConstraint(
        "(reason IS NOT NULL) = (outcome IN ('not_assessed', 'ignored'))", name="reason"
    ),
    Index("exams_by_outcome", "outcome", "reason"),
    Index(
        "exams_of_patient",
        "patient_pseudonym",
        sqlite_where=text("patient_pseudonym IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.exam_id"), nullable=False),
    Column("stage", _words(Stage, name="stage"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", _words(JobState, name="state"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("created_at", UtcSeconds, nullable=False),
    Column("run_after", UtcSeconds, nullable=False),
    Column("owner", String(64)),
    Column("lease_expires_at", UtcSeconds),
    Column("fault", _words(Fault, name="fault", closed=False)),
    Column("detail", String, nullable=False),
    CheckConstraint("attempt >= 0 AND crashes >= 0", name="counts"),
    CheckConstraint("(stage IN ('deliver', 'confirm')) = (destination <> '')", name="destination"),
    CheckConstraint("(state = 'leased') = (lease_expires_at IS NOT NULL)", name="lease"),
    CheckConstraint("(state = 'leased') = (owner IS NOT NULL)", name="owner"),
    CheckConstraint("state <> 'parked' OR fault IS NOT NULL", name="parked_why"),
    Index("jobs_of_exam", "exam_id"),
    Index("jobs_one_open", "exam_id", "stage", "destination", unique=True, sqlite_where=text(OPEN)),
    Index("jobs_due", "stage", "run_after", sqlite_where=text(QUEUED)),
    Index("jobs_due_there", "stage", "destination", "run_after", sqlite_where=text(QUEUED)),
    Index("jobs_leased", "lease_expires_at", sqlite_where=text(LEASED)),
    sqlite_autoincrement=True,
)

predictions = Table(
    "predictions",
    metadata,
    Column("exam_id", ForeignKey("exams.exam_id"), primary_key=True),
    Column("bone_age_months", Float, nullable=False),
    Column("sd_months", Float, nullable=False),
    Column("hand_left", Float, nullable=False),
    Column("hand_top", Float, nullable=False),
    Column("hand_right", Float, nullable=False),
    Column("hand_bottom", Float, nullable=False),
    Column("model_name", String(64), nullable=False),
    Column("model_version", String(64), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("findings", JSON, nullable=False, server_default="[]"),
    Column("saliency", JSON(none_as_null=True)),
)

reports = Table(
    "reports",
    metadata,
    Column("report_id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.exam_id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("kind", _words(ReportKind, name="kind"), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    Column("archived_at", UtcSeconds),
    Column("archived_sha256", String(64)),
    Column("purged_at", UtcSeconds),
    Index("reports_of_exam", "exam_id"),
    Index("reports_kept", "exam_id", sqlite_where=text(KEPT)),
    Index("reports_not_archived", "exam_id", sqlite_where=text(NOT_ARCHIVED)),
    CheckConstraint("revision >= 1", name="revision"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("sop_instance_uid", ForeignKey("reports.sop_instance_uid"), primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column("status", Integer, nullable=False),
    Column("verdict", _words(Verdict, name="verdict"), nullable=False),
    Column("sent_sop_class_uid", String(64), nullable=False),
    Column("sent_sop_instance_uid", String(64), nullable=False),
    Column("answered_at", UtcSeconds, nullable=False),
    Column("evidence", _words(Evidence, name="evidence")),
    Column("evidence_at", UtcSeconds),
    Column("losses", Integer, nullable=False, server_default="0"),
    CheckConstraint("(evidence IS NOT NULL) = (evidence_at IS NOT NULL)", name="evidence_when"),
)

forwarding = Table(
    "forwarding",
    metadata,
    Column("exam_id", ForeignKey("exams.exam_id"), primary_key=True),
    Column("change", Integer, nullable=False),
    Column("forwarded_change", Integer, nullable=False, server_default="0"),
    Column("batch", Integer),
    Column("changed_at", UtcSeconds, nullable=False),
    Column("fault", _words(Fault, name="fault", closed=False)),
    CheckConstraint("forwarded_change <= change", name="order"),
    Index("forwarding_waiting", "changed_at", sqlite_where=text(WAITS_FOR_CENTRE)),
    Index("forwarding_by_batch", "batch"),
)

commitment_requests = Table(
    "commitment_requests",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("exam_id", ForeignKey("exams.exam_id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("requested_at", UtcSeconds, nullable=False),
    Index("commitment_requests_of_exam", "exam_id", "destination"),
)

commitment_promises = Table(
    "commitment_promises",
    metadata,
    Column("promise_id", Integer, primary_key=True),
    Column("ae_title", String(16), nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    Column("institution_id", String(64), nullable=False),
    Column("objects", JSON, nullable=False),
    Column("asked_at", UtcSeconds, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("run_after", UtcSeconds),
    UniqueConstraint("ae_title", "transaction_uid", name="uq_commitment_promises_transaction"),
    Index("commitment_promises_due", "run_after", sqlite_where=text("run_after IS NOT NULL")),
)

journal = Table(
    "journal",
    metadata,
    Column("entry_id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exams.exam_id"), nullable=False),
    Column("at", UtcSeconds, nullable=False),
    Column("event", String(32), nullable=False),
    Column("detail", String, nullable=False),
    Index("journal_of_exam", "exam_id"),
)
