"""Which months were detached: a node must not make them anew."""

from alembic import op

revision = "c0003"
down_revision = "c0002"

_TABLE = """
    CREATE TABLE detached_months (
        region text NOT NULL,
        month date NOT NULL CHECK (extract(day FROM month) = 1),
        detached_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (region, month)
    )
"""

# As before, but for a month that was detached: its exams would stand once here and once there.
_MAKE_PARTITION = """
    CREATE OR REPLACE FUNCTION make_partition(of_region text, at timestamptz) RETURNS void
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
        IF EXISTS (SELECT FROM detached_months WHERE region = of_region AND month = first_day) THEN
            RAISE EXCEPTION 'the month of % is detached', at USING ERRCODE = 'NM001';
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
"""


def upgrade() -> None:
    """Only the owner reads and writes the table; a node meets it within ``make_own_partition``."""
    op.execute(_TABLE)
    op.execute(_MAKE_PARTITION.replace(":", r"\:"))
