"""The first schema."""

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = (
    """
    CREATE TABLE instances (
        instance_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        sop_class_uid VARCHAR(64) NOT NULL,
        sop_instance_uid VARCHAR(64) NOT NULL,
        transfer_syntax_uid VARCHAR(64) NOT NULL,
        content_sha256 VARCHAR(64) NOT NULL,
        size_bytes INTEGER NOT NULL,
        calling_ae_title VARCHAR(16) NOT NULL,
        peer_address VARCHAR(64) NOT NULL,
        institution_id VARCHAR(64) NOT NULL,
        received_at FLOAT NOT NULL,
        CONSTRAINT uq_instances_content UNIQUE (sop_instance_uid, content_sha256),
        CONSTRAINT ck_instances_hash_length CHECK (length(content_sha256) = 64),
        CONSTRAINT ck_instances_size CHECK (size_bytes >= 0)
    )
    """,
    """
    CREATE TABLE exams (
        exam_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        instance_id INTEGER NOT NULL,
        study_instance_uid VARCHAR(64) DEFAULT '' NOT NULL,
        outcome VARCHAR(32) NOT NULL,
        reason VARCHAR(32),
        sex VARCHAR(32),
        laterality VARCHAR(32),
        view_position VARCHAR(64),
        chronological_age_months FLOAT,
        notes JSON DEFAULT '[]' NOT NULL,
        CONSTRAINT ck_exams_reason
            CHECK ((reason IS NOT NULL) = (outcome IN ('not_assessed', 'ignored'))),
        CONSTRAINT uq_exams_instance_id UNIQUE (instance_id),
        FOREIGN KEY(instance_id) REFERENCES instances (instance_id),
        CONSTRAINT ck_exams_outcome
            CHECK (outcome IN ('pending', 'assessed', 'not_assessed', 'ignored')),
        CONSTRAINT ck_exams_sex CHECK (sex IN ('F', 'M')),
        CONSTRAINT ck_exams_laterality CHECK (laterality IN ('L', 'R', 'B', 'U'))
    )
    """,
    """
    CREATE INDEX exams_by_outcome ON exams (outcome, reason)
    """,
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
        CONSTRAINT ck_jobs_destination CHECK ((stage = 'deliver') = (destination <> '')),
        CONSTRAINT ck_jobs_lease CHECK ((state = 'leased') = (lease_expires_at IS NOT NULL)),
        CONSTRAINT ck_jobs_owner CHECK ((state = 'leased') = (owner IS NOT NULL)),
        CONSTRAINT ck_jobs_parked_why CHECK (state <> 'parked' OR fault IS NOT NULL),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id),
        CONSTRAINT ck_jobs_stage CHECK (stage IN ('screen', 'infer', 'report', 'deliver')),
        CONSTRAINT ck_jobs_state
            CHECK (state IN ('queued', 'leased', 'done', 'parked', 'discarded'))
    )
    """,
    """
    CREATE INDEX jobs_leased ON jobs (lease_expires_at) WHERE state = 'leased'
    """,
    """
    CREATE INDEX jobs_of_exam ON jobs (exam_id)
    """,
    """
    CREATE UNIQUE INDEX jobs_one_open ON jobs (exam_id, stage, destination)
        WHERE state IN ('queued', 'leased', 'parked')
    """,
    """
    CREATE INDEX jobs_due_there ON jobs (stage, destination, run_after) WHERE state = 'queued'
    """,
    """
    CREATE INDEX jobs_due ON jobs (stage, run_after) WHERE state = 'queued'
    """,
    """
    CREATE TABLE predictions (
        exam_id INTEGER NOT NULL,
        bone_age_months FLOAT NOT NULL,
        sd_months FLOAT NOT NULL,
        hand_left FLOAT NOT NULL,
        hand_top FLOAT NOT NULL,
        hand_right FLOAT NOT NULL,
        hand_bottom FLOAT NOT NULL,
        model_name VARCHAR(64) NOT NULL,
        model_version VARCHAR(64) NOT NULL,
        model_sha256 VARCHAR(64) NOT NULL,
        PRIMARY KEY (exam_id),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id)
    )
    """,
    """
    CREATE TABLE reports (
        report_id INTEGER NOT NULL,
        exam_id INTEGER NOT NULL,
        kind VARCHAR(32) NOT NULL,
        sop_class_uid VARCHAR(64) NOT NULL,
        sop_instance_uid VARCHAR(64) NOT NULL,
        series_instance_uid VARCHAR(64) NOT NULL,
        encoded BLOB NOT NULL,
        PRIMARY KEY (report_id),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id),
        CONSTRAINT ck_reports_kind CHECK (kind IN ('measurements', 'narrative')),
        CONSTRAINT uq_reports_sop_instance_uid UNIQUE (sop_instance_uid)
    )
    """,
    """
    CREATE INDEX reports_of_exam ON reports (exam_id)
    """,
    """
    CREATE TABLE journal (
        entry_id INTEGER NOT NULL,
        exam_id INTEGER NOT NULL,
        at FLOAT NOT NULL,
        event VARCHAR(32) NOT NULL,
        detail VARCHAR NOT NULL,
        PRIMARY KEY (entry_id),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id)
    )
    """,
    """
    CREATE INDEX journal_of_exam ON journal (exam_id)
    """,
    """
    CREATE TABLE deliveries (
        sop_instance_uid VARCHAR(64) NOT NULL,
        destination VARCHAR(64) NOT NULL,
        status INTEGER NOT NULL,
        verdict VARCHAR(32) NOT NULL,
        answered_at FLOAT NOT NULL,
        PRIMARY KEY (sop_instance_uid, destination),
        FOREIGN KEY(sop_instance_uid) REFERENCES reports (sop_instance_uid),
        CONSTRAINT ck_deliveries_verdict CHECK (verdict IN ('stored', 'try_again', 'refused'))
    )
    """,
)


def upgrade() -> None:
    """Make all tables and indexes."""
    for statement in _STATEMENTS:
        op.execute(statement)
