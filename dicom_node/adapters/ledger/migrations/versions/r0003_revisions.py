"""Reports are revised, sent as the SOP class that a destination takes, drawn and compared with the
patient's earlier exams."""

from alembic import op

revision = "0003"
down_revision = "0002"

_STATEMENTS = (
    "ALTER TABLE exams ADD COLUMN patient_pseudonym VARCHAR(64)",
    "ALTER TABLE exams ADD COLUMN study_date DATE",
    """
    CREATE INDEX exams_of_patient ON exams (patient_pseudonym)
        WHERE patient_pseudonym IS NOT NULL
    """,
    "ALTER TABLE deliveries RENAME TO old_deliveries",
    "ALTER TABLE reports RENAME TO old_reports",
    "DROP INDEX reports_of_exam",
    """
    CREATE TABLE reports (
        report_id INTEGER NOT NULL,
        exam_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        kind VARCHAR(32) NOT NULL,
        sop_class_uid VARCHAR(64) NOT NULL,
        sop_instance_uid VARCHAR(64) NOT NULL,
        series_instance_uid VARCHAR(64) NOT NULL,
        encoded BLOB NOT NULL,
        PRIMARY KEY (report_id),
        CONSTRAINT ck_reports_revision CHECK (revision >= 1),
        FOREIGN KEY(exam_id) REFERENCES exams (exam_id),
        CONSTRAINT ck_reports_kind
            CHECK (kind IN ('measurements', 'narrative', 'capture', 'pdf')),
        CONSTRAINT uq_reports_sop_instance_uid UNIQUE (sop_instance_uid)
    )
    """,
    "CREATE INDEX reports_of_exam ON reports (exam_id)",
    """
    INSERT INTO reports
        SELECT report_id, exam_id, 1, kind, sop_class_uid, sop_instance_uid, series_instance_uid,
            encoded
        FROM old_reports
    """,
    """
    CREATE TABLE deliveries (
        sop_instance_uid VARCHAR(64) NOT NULL,
        destination VARCHAR(64) NOT NULL,
        status INTEGER NOT NULL,
        verdict VARCHAR(32) NOT NULL,
        sent_sop_class_uid VARCHAR(64) NOT NULL,
        sent_sop_instance_uid VARCHAR(64) NOT NULL,
        answered_at FLOAT NOT NULL,
        PRIMARY KEY (sop_instance_uid, destination),
        FOREIGN KEY(sop_instance_uid) REFERENCES reports (sop_instance_uid),
        CONSTRAINT ck_deliveries_verdict
            CHECK (verdict IN ('stored', 'try_again', 'refused', 'not_taken'))
    )
    """,
    """
    INSERT INTO deliveries
        SELECT sop_instance_uid, destination, status, verdict, sop_class_uid, sop_instance_uid,
            answered_at
        FROM old_deliveries JOIN reports USING (sop_instance_uid)
    """,
    "DROP TABLE old_deliveries",
    "DROP TABLE old_reports",
)


def upgrade() -> None:
    """Every report so far is a first one and was sent as it is; earlier exams have no pseudonym, so
    that nothing is compared with them."""
    for statement in _STATEMENTS:
        op.execute(statement)
