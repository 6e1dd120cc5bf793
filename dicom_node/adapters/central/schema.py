"""What a node writes at the centre, for SQLAlchemy. The migrations define it, with its constraints,
rights and partitions; a test compares both."""

from __future__ import annotations

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.types import SmallInteger

metadata = MetaData()
_Time = DateTime(timezone=True)

nodes = Table(
    "nodes",
    metadata,
    Column("role_name", Text, primary_key=True),
    Column("region", Text),
    Column("node", Text),
    Column("version", Text),
    Column("last_seen_at", _Time),
    Column("last_batch", BigInteger),
)

institutions = Table(
    "institutions",
    metadata,
    Column("region", Text, primary_key=True),
    Column("institution_id", Text, primary_key=True),
)

models = Table(
    "models",
    metadata,
    Column("model_sha256", Text, primary_key=True),
    Column("model_name", Text),
    Column("model_version", Text),
)

exams = Table(
    "exams",
    metadata,
    Column("region", Text, primary_key=True),
    Column("received_at", _Time, primary_key=True),
    Column("exam_pseudonym", Text, primary_key=True),
    Column("node", Text),
    Column("institution_id", Text),
    Column("patient_pseudonym", Text),
    Column("key_id", Text),
    Column("chronological_age_months", SmallInteger),
    Column("sex", Text),
    Column("outcome", Text),
    Column("reason", Text),
    Column("bone_age_months", REAL),
    Column("sd_months", REAL),
    Column("z_score", REAL),
    Column("model_sha256", Text),
    Column("object_kinds", ARRAY(Text)),
    Column("screen_seconds", REAL),
    Column("infer_seconds", REAL),
    Column("report_seconds", REAL),
    Column("reported_at", _Time),
    Column("forwarded_at", _Time),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("region", Text, primary_key=True),
    Column("received_at", _Time, primary_key=True),
    Column("exam_pseudonym", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("node", Text),
    Column("outcome", Text),
    Column("delivered_at", _Time),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("region", Text, primary_key=True),
    Column("received_at", _Time, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("ready", Boolean),
    Column("queued", Integer),
    Column("parked", Integer),
)
