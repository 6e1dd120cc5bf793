"""When an object was archived and when it was purged."""

from alembic import op

revision = "0006"
down_revision = "0005"

_STATEMENTS = (
    "ALTER TABLE instances ADD COLUMN archived_at FLOAT",
    "ALTER TABLE instances ADD COLUMN purged_at FLOAT",
    "ALTER TABLE reports ADD COLUMN archived_at FLOAT",
    "ALTER TABLE reports ADD COLUMN archived_sha256 VARCHAR(64)",
    "ALTER TABLE reports ADD COLUMN purged_at FLOAT",
    "CREATE INDEX instances_by_arrival ON instances (received_at)",
    "CREATE INDEX instances_kept ON instances (instance_id) WHERE purged_at IS NULL",
    "CREATE INDEX reports_kept ON reports (exam_id) WHERE purged_at IS NULL",
    "CREATE INDEX reports_not_archived ON reports (exam_id) WHERE archived_at IS NULL",
)


def upgrade() -> None:
    """Nothing has been archived or purged so far."""
    for statement in _STATEMENTS:
        op.execute(statement)
