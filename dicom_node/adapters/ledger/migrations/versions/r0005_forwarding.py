"""Exams that the centre has still to learn about."""

from alembic import op

revision = "0005"
down_revision = "0004"

_STATEMENTS = (
    """
    CREATE TABLE forwarding (
        exam_id INTEGER NOT NULL,
        change INTEGER NOT NULL,
        forwarded_change INTEGER DEFAULT '0' NOT NULL,
        batch INTEGER,
        changed_at FLOAT NOT NULL,
        fault VARCHAR(32),
        PRIMARY KEY (exam_id),
        CONSTRAINT ck_forwarding_order CHECK (forwarded_change <= change),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id)
    )
    """,
    "CREATE INDEX forwarding_by_batch ON forwarding (batch)",
    """
    CREATE INDEX forwarding_waiting ON forwarding (changed_at)
        WHERE change > forwarded_change AND fault IS NULL
    """,
    """
    INSERT INTO forwarding (exam_id, change, changed_at)
        SELECT exam_id, 1, received_at FROM exams JOIN instances USING (instance_id)
        WHERE outcome <> 'pending'
    """,
)


def upgrade() -> None:
    """Every exam that has ended so far is still to be forwarded."""
    for statement in _STATEMENTS:
        op.execute(statement)
