"""The first schema of the centre: exams of all regions, each readable and writable by its own
nodes only."""

from alembic import op

revision = "c0001"
down_revision = None

_NAME = "CHECK ({0} ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}$')"
_HASH = "CHECK ({0} ~ '^[0-9a-f]{{64}}$')"

_TABLES = (
    f"""
    CREATE TABLE nodes (
        role_name name PRIMARY KEY,
        region text NOT NULL {_NAME.format("region")},
        node text NOT NULL {_NAME.format("node")},
        version text,
        last_seen_at timestamptz,
        last_batch bigint NOT NULL DEFAULT 0,
        UNIQUE (region, node)
    )
    """,
    f"""
    CREATE TABLE institutions (
        region text NOT NULL {_NAME.format("region")},
        institution_id text NOT NULL {_NAME.format("institution_id")},
        first_seen_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (region, institution_id)
    )
    """,
    f"""
    CREATE TABLE models (
        model_sha256 text PRIMARY KEY {_HASH.format("model_sha256")},
        model_name text NOT NULL {_NAME.format("model_name")},
        model_version text NOT NULL {_NAME.format("model_version")}
    )
    """,
    f"""
    CREATE TABLE exams (
        region text NOT NULL,
        received_at timestamptz NOT NULL,
        exam_pseudonym text NOT NULL {_HASH.format("exam_pseudonym")},
        node text NOT NULL,
        institution_id text NOT NULL,
        patient_pseudonym text {_HASH.format("patient_pseudonym")},
        key_id text NOT NULL CHECK (key_id ~ '^[0-9a-f]{{16}}$'),
        chronological_age_months smallint CHECK (chronological_age_months BETWEEN 0 AND 1800),
        sex text CHECK (sex IN ('F', 'M')),
        outcome text NOT NULL CHECK (outcome IN ('assessed', 'not_assessed', 'ignored')),
        reason text CHECK (reason ~ '^[a-z_]{{1,32}}$'),
        bone_age_months real CHECK (bone_age_months BETWEEN 0 AND 400),
        sd_months real CHECK (sd_months > 0),
        z_score real,
        model_sha256 text REFERENCES models,
        object_kinds text[] NOT NULL DEFAULT '{{}}',
        screen_seconds real CHECK (screen_seconds >= 0),
        infer_seconds real CHECK (infer_seconds >= 0),
        report_seconds real CHECK (report_seconds >= 0),
        reported_at timestamptz CHECK (reported_at >= received_at),
        forwarded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (region, received_at, exam_pseudonym),
        FOREIGN KEY (region, institution_id) REFERENCES institutions,
        CONSTRAINT result CHECK ((outcome = 'assessed') = (bone_age_months IS NOT NULL)),
        CONSTRAINT whole_result CHECK (
            num_nulls(bone_age_months, sd_months, model_sha256) IN (0, 3)
        ),
        CONSTRAINT why CHECK ((outcome = 'assessed') = (reason IS NULL))
    ) PARTITION BY LIST (region)
    """,
    """
    CREATE TABLE deliveries (
        region text NOT NULL,
        received_at timestamptz NOT NULL,
        exam_pseudonym text NOT NULL,
        node text NOT NULL,
        destination text NOT NULL CHECK (destination ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
        outcome text NOT NULL CHECK (outcome IN ('open', 'delivered', 'parked', 'discarded')),
        delivered_at timestamptz,
        PRIMARY KEY (region, received_at, exam_pseudonym, destination),
        CHECK ((outcome = 'delivered') = (delivered_at IS NOT NULL))
    ) PARTITION BY LIST (region)
    """,
    """
    CREATE TABLE heartbeats (
        region text NOT NULL,
        received_at timestamptz NOT NULL,
        node text NOT NULL,
        ready boolean NOT NULL,
        queued integer NOT NULL CHECK (queued >= 0),
        parked integer NOT NULL CHECK (parked >= 0),
        PRIMARY KEY (region, received_at, node)
    ) PARTITION BY LIST (region)
    """,
    f"""
    CREATE TABLE feedback (
        region text NOT NULL,
        exam_pseudonym text NOT NULL {_HASH.format("exam_pseudonym")},
        given_at timestamptz NOT NULL,
        reader_bone_age_months real NOT NULL CHECK (reader_bone_age_months BETWEEN 0 AND 400),
        PRIMARY KEY (region, exam_pseudonym, given_at)
    )
    """,
)

_INDEXES = (
    "CREATE INDEX exams_by_pseudonym ON exams (exam_pseudonym)",
    "CREATE INDEX exams_by_institution ON exams (region, institution_id, received_at)",
    "CREATE INDEX exams_of_patient ON exams (region, patient_pseudonym, received_at) "
    "WHERE patient_pseudonym IS NOT NULL",
    "CREATE INDEX exams_by_forwarding ON exams (region, node, forwarded_at)",
)

# A partition for each region, in it one for each month (UTC). Nodes make those that they need: a
# replay may reach back for years. Deliveries have no foreign key to their exam, so that a month can
# be detached; both are written in one transaction.
_PARTITIONS = (
    """
    CREATE FUNCTION make_partition(of_region text, at timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    DECLARE
        first_day timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
        parent text;
        in_region text;
        in_month text;
    BEGIN
        IF at NOT BETWEEN '2000-01-01' AND now() + interval '1 year' THEN
            RAISE EXCEPTION 'no partition for %: the clock of the node is wrong', at
                USING ERRCODE = 'datetime_field_overflow';
        END IF;
        FOREACH parent IN ARRAY ARRAY['exams', 'deliveries', 'heartbeats'] LOOP
            in_region := parent || '_' || of_region;
            in_month := in_region || to_char(first_day, '_YYYY_MM');
            IF to_regclass(format('%I', in_month)) IS NOT NULL THEN
                CONTINUE;
            END IF;
            -- in the order in which nodes write: else one of both is the victim of a deadlock
            LOCK TABLE institutions, models, exams, deliveries, heartbeats
                IN SHARE ROW EXCLUSIVE MODE;
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES IN (%L) '
                'PARTITION BY RANGE (received_at)', in_region, parent, of_region);
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                in_month, in_region, first_day AT TIME ZONE 'UTC',
                (first_day + interval '1 month') AT TIME ZONE 'UTC');
        END LOOP;
    END $$
    """,
    """
    CREATE FUNCTION make_own_partition(at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        PERFORM make_partition(own_region(), at);
    END $$
    """,
    """
    CREATE FUNCTION make_coming_partitions(months integer) RETURNS void
    LANGUAGE sql SET search_path = public, pg_temp AS $$
        SELECT make_partition(known.region, now() + ahead * interval '1 month')
        FROM (SELECT DISTINCT region FROM nodes) AS known, generate_series(0, months) AS ahead
        ORDER BY known.region, ahead
    $$
    """,
    """
    CREATE FUNCTION forget_twins(names text[], times timestamptz[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        mine text := own_region();
        me text := own_node();
        twin record;
    BEGIN
        FOR twin IN
            SELECT e.exam_pseudonym, e.received_at
            FROM unnest(names, times) AS new (name, at)
            JOIN exams AS e ON e.exam_pseudonym = new.name AND e.received_at <> new.at
            WHERE e.region = mine AND e.node = me
        LOOP
            DELETE FROM deliveries WHERE region = mine AND received_at = twin.received_at
                AND exam_pseudonym = twin.exam_pseudonym;
            DELETE FROM exams WHERE region = mine AND received_at = twin.received_at
                AND exam_pseudonym = twin.exam_pseudonym;
        END LOOP;
    END $$
    """,
    "REVOKE ALL ON FUNCTION forget_twins(text[], timestamptz[]) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION make_partition(text, timestamptz) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION make_coming_partitions(integer) FROM PUBLIC",
    "REVOKE ALL ON FUNCTION make_own_partition(timestamptz) FROM PUBLIC",
)

# Who a session is follows from its login role, which only the owner can bind to a node.
_IDENTITY = (
    """
    CREATE FUNCTION own_region() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT region FROM nodes WHERE role_name = session_user $$
    """,
    """
    CREATE FUNCTION own_node() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT node FROM nodes WHERE role_name = session_user $$
    """,
    """
    CREATE FUNCTION admit_node(login name, of_region text, node_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
        EXECUTE format('GRANT bone_age_node TO %I', login);
        INSERT INTO nodes (role_name, region, node) VALUES (login, of_region, node_name)
        ON CONFLICT (role_name) DO UPDATE
            SET region = excluded.region, node = excluded.node;
        PERFORM make_coming_partitions(3);
    END $$
    """,
    "REVOKE ALL ON FUNCTION admit_node(name, text, text) FROM PUBLIC",
)


def _role(name: str) -> str:
    return f"""
    DO $$ BEGIN
        CREATE ROLE {name} NOLOGIN;
    EXCEPTION WHEN duplicate_object THEN
        NULL;
    END $$
    """


def _own_rows(table: str, written: str) -> tuple[str, ...]:
    """A node reads its region's rows; which ones it may make and change says ``written``."""
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY reads ON {table} FOR SELECT TO bone_age_node USING ({_OWN})",
        f"CREATE POLICY makes ON {table} FOR INSERT TO bone_age_node WITH CHECK ({written})",
        f"""
        CREATE POLICY changes ON {table} FOR UPDATE TO bone_age_node
            USING ({written}) WITH CHECK ({written})
        """,
    )


_OWN = "region = (SELECT own_region())"
_OWN_NODE = f"{_OWN} AND node = (SELECT own_node())"

_RIGHTS = (
    *_own_rows("exams", _OWN_NODE),
    *_own_rows("heartbeats", _OWN_NODE),
    *_own_rows("deliveries", _OWN_NODE),
    *_own_rows("feedback", _OWN),
    *_own_rows("institutions", _OWN),
    *_own_rows("nodes", _OWN_NODE),
    "GRANT SELECT, INSERT, UPDATE ON exams, deliveries, heartbeats TO bone_age_node",
    "GRANT SELECT, INSERT ON institutions, feedback, models TO bone_age_node",
    "GRANT SELECT, UPDATE (version, last_seen_at, last_batch) ON nodes TO bone_age_node",
    "GRANT EXECUTE ON FUNCTION own_region(), own_node(), make_own_partition(timestamptz), "
    "forget_twins(text[], timestamptz[]) TO bone_age_node",
)

_VIEWS = (
    """
    CREATE VIEW exam_facts AS
        SELECT region, node, institution_id, received_at, chronological_age_months, sex, outcome,
            reason, bone_age_months, sd_months, z_score, model_name, model_version, object_kinds,
            screen_seconds, infer_seconds, report_seconds, reported_at, forwarded_at
        FROM exams LEFT JOIN models USING (model_sha256)
    """,
    """
    CREATE VIEW delivery_facts AS
        SELECT e.region, e.node, e.institution_id, e.received_at, d.destination,
            d.outcome, d.delivered_at,
            extract(epoch FROM d.delivered_at - e.received_at) AS total_seconds
        FROM deliveries AS d JOIN exams AS e USING (region, received_at, exam_pseudonym)
    """,
    """
    CREATE VIEW node_facts AS
        SELECT region, node, version, last_seen_at FROM nodes
    """,
    "CREATE VIEW heartbeat_facts AS SELECT * FROM heartbeats",
    "GRANT SELECT ON exam_facts, delivery_facts, node_facts, heartbeat_facts TO bone_age_reporting",
)


def upgrade() -> None:
    """Roles are of the whole cluster and may be there already."""
    for statement in (
        _role("bone_age_node"),
        _role("bone_age_reporting"),
        *_TABLES,
        *_INDEXES,
        *_IDENTITY,
        *_PARTITIONS,
        *_RIGHTS,
        *_VIEWS,
    ):
        op.execute(statement.replace(":", r"\:"))
