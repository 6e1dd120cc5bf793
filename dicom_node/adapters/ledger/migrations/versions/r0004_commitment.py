"""Destinations prove that they keep reports, and others may ask the node the same (Storage
Commitment)."""

from alembic import op

revision = "0004"
down_revision = "0003"

_STATEMENTS = (
    "DROP INDEX jobs_of_exam",
    "DROP INDEX jobs_one_open",
    "DROP INDEX jobs_due",
    "DROP INDEX jobs_due_there",
    "DROP INDEX jobs_leased",
    "ALTER TABLE jobs RENAME TO old_jobs",
    """
    CREATE TABLE jobs (
        job_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        exam_id INTEGER NOT NULL,
        stage VARCHAR(32) NOT NULL,
        destination VARCHAR(64) NOT NULL,
        state VARCHAR(32) NOT NULL,
        attempt INTEGER NOT NULL,
        crashes INTEGER NOT NULL,
        created_at FLOAT NOT NULL,
        run_after FLOAT NOT NULL,
        owner VARCHAR(64),
        lease_expires_at FLOAT,
        fault VARCHAR(32),
        detail VARCHAR NOT NULL,
        CONSTRAINT ck_jobs_counts CHECK (attempt >= 0 AND crashes >= 0),
        CONSTRAINT ck_jobs_destination
            CHECK ((stage IN ('deliver', 'confirm')) = (destination <> '')),
        CONSTRAINT ck_jobs_lease
            CHECK ((state = 'leased') = (lease_expires_at IS NOT NULL)),
        CONSTRAINT ck_jobs_owner CHECK ((state = 'leased') = (owner IS NOT NULL)),
        CONSTRAINT ck_jobs_parked_why CHECK (state <> 'parked' OR fault IS NOT NULL),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id),
        CONSTRAINT ck_jobs_stage
            CHECK (stage IN ('screen', 'infer', 'report', 'deliver', 'confirm')),
        CONSTRAINT ck_jobs_state
            CHECK (state IN ('queued', 'leased', 'done', 'parked', 'discarded'))
    )
    """,
    "INSERT INTO jobs SELECT * FROM old_jobs",
    "DROP TABLE old_jobs",
    "CREATE INDEX jobs_due ON jobs (stage, run_after) WHERE state = 'queued'",
    """
    CREATE INDEX jobs_due_there ON jobs (stage, destination, run_after)
        WHERE state = 'queued'
    """,
    "CREATE INDEX jobs_leased ON jobs (lease_expires_at) WHERE state = 'leased'",
    "CREATE INDEX jobs_of_exam ON jobs (exam_id)",
    """
    CREATE UNIQUE INDEX jobs_one_open ON jobs (exam_id, stage, destination)
        WHERE state IN ('queued', 'leased', 'parked')
    """,
    "ALTER TABLE deliveries RENAME TO old_deliveries",
    """
    CREATE TABLE deliveries (
        sop_instance_uid VARCHAR(64) NOT NULL,
        destination VARCHAR(64) NOT NULL,
        status INTEGER NOT NULL,
        verdict VARCHAR(32) NOT NULL,
        sent_sop_class_uid VARCHAR(64) NOT NULL,
        sent_sop_instance_uid VARCHAR(64) NOT NULL,
        answered_at FLOAT NOT NULL,
        evidence VARCHAR(32),
        evidence_at FLOAT,
        losses INTEGER DEFAULT '0' NOT NULL,
        PRIMARY KEY (sop_instance_uid, destination),
        CONSTRAINT ck_deliveries_evidence_when
            CHECK ((evidence IS NOT NULL) = (evidence_at IS NOT NULL)),
        FOREIGN KEY(sop_instance_uid) REFERENCES reports (sop_instance_uid),
        CONSTRAINT ck_deliveries_verdict
            CHECK (verdict IN ('stored', 'try_again', 'refused', 'not_taken')),
        CONSTRAINT ck_deliveries_evidence CHECK (evidence IN ('kept', 'lost'))
    )
    """,
    "INSERT INTO deliveries SELECT *, NULL, NULL, 0 FROM old_deliveries",
    "DROP TABLE old_deliveries",
    """
    CREATE TABLE commitment_requests (
        transaction_uid VARCHAR(64) NOT NULL,
        exam_id INTEGER NOT NULL,
        destination VARCHAR(64) NOT NULL,
        requested_at FLOAT NOT NULL,
        PRIMARY KEY (transaction_uid),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id)
    )
    """,
    "CREATE INDEX commitment_requests_of_exam ON commitment_requests (exam_id, destination)",
    """
    CREATE TABLE commitment_promises (
        promise_id INTEGER NOT NULL,
        ae_title VARCHAR(16) NOT NULL,
        transaction_uid VARCHAR(64) NOT NULL,
        institution_id VARCHAR(64) NOT NULL,
        objects JSON NOT NULL,
        asked_at FLOAT NOT NULL,
        attempt INTEGER NOT NULL,
        run_after FLOAT,
        PRIMARY KEY (promise_id),
        CONSTRAINT uq_commitment_promises_transaction UNIQUE (ae_title, transaction_uid)
    )
    """,
    """
    CREATE INDEX commitment_promises_due ON commitment_promises (run_after)
        WHERE run_after IS NOT NULL
    """,
)


def upgrade() -> None:
    """What was delivered so far stays closed by its status."""
    for statement in _STATEMENTS:
        op.execute(statement)
