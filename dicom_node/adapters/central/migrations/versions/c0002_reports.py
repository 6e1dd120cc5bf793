"""What the business asks: usage, quality, latency, availability, and cost by a price list."""

from alembic import op

revision = "c0002"
down_revision = "c0001"

_NAME = "CHECK ({0} ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}$')"

_PRICES = (
    """
    CREATE TABLE prices (
        item text PRIMARY KEY CHECK (item IN ('compute', 'storage', 'network')),
        brl_per_exam numeric(12, 4) NOT NULL CHECK (brl_per_exam >= 0)
    )
    """,
    f"""
    CREATE TABLE contracts (
        region text NOT NULL,
        institution_id text NOT NULL {_NAME.format("institution_id")},
        brl_per_month numeric(12, 2) NOT NULL DEFAULT 0 CHECK (brl_per_month >= 0),
        brl_per_exam numeric(12, 4) NOT NULL DEFAULT 0 CHECK (brl_per_exam >= 0),
        PRIMARY KEY (region, institution_id)
    )
    """,
)

_ZONE = "AT TIME ZONE 'America/Sao_Paulo'"
_DAY = f"(received_at {_ZONE})::date"
_BETWEEN = f"received_at >= $1::timestamp {_ZONE} AND received_at < $2::timestamp {_ZONE}"


def _report(name: str, columns: str, query: str) -> tuple[str, ...]:
    """A function of two days, the first and the one after the last, and a view of all times.

    It is planned anew with these days, so that no partition of other months is even looked at. The
    reporting role sees through it what it may not read.
    """
    signature = f"{name}_between(since date, until date)"
    return (
        f"""
        CREATE FUNCTION {signature} RETURNS TABLE ({columns})
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp
        AS $$ BEGIN RETURN QUERY EXECUTE $query$ {query} $query$ USING since, until; END $$
        """,
        f"REVOKE ALL ON FUNCTION {name}_between(date, date) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {name}_between(date, date) TO bone_age_reporting",
        f"CREATE VIEW report_{name} AS SELECT * FROM {name}_between('-infinity', 'infinity')",
    )


_REPORTS = (
    *_report(
        "usage",
        "region text, institution_id text, day date, exams bigint, assessed bigint, "
        "not_assessed bigint, ignored bigint",
        f"""
        SELECT region, institution_id, {_DAY}, count(*),
            count(*) FILTER (WHERE outcome = 'assessed'),
            count(*) FILTER (WHERE outcome = 'not_assessed'),
            count(*) FILTER (WHERE outcome = 'ignored')
        FROM exams WHERE {_BETWEEN} GROUP BY 1, 2, 3
        """,
    ),
    *_report(
        "quality",
        "region text, institution_id text, day date, outcome text, reason text, sex text, "
        "bone_age_years integer, exams bigint, mean_sd_months double precision, "
        "exams_with_z bigint, mean_z_score double precision",
        f"""
        SELECT region, institution_id, {_DAY}, outcome, reason, sex,
            floor(bone_age_months / 12)::integer, count(*), avg(sd_months), count(z_score),
            avg(z_score)
        FROM exams WHERE {_BETWEEN} GROUP BY 1, 2, 3, 4, 5, 6, 7
        """,
    ),
    *_report(
        "latency",
        "region text, institution_id text, day date, stage text, seconds real",
        f"""
        SELECT e.region, e.institution_id, {_DAY}, stage.name, stage.seconds
        FROM exams AS e
        LEFT JOIN (
            SELECT region, received_at, exam_pseudonym, min(delivered_at) AS first_at
            FROM deliveries WHERE {_BETWEEN} GROUP BY 1, 2, 3
        ) AS d USING (region, received_at, exam_pseudonym)
        CROSS JOIN LATERAL (VALUES
            ('screen', e.screen_seconds), ('infer', e.infer_seconds),
            ('report', e.report_seconds),
            ('total', extract(epoch FROM d.first_at - received_at)::real)
        ) AS stage (name, seconds)
        WHERE {_BETWEEN} AND stage.seconds IS NOT NULL
        """,
    ),
    *_report(
        "availability",
        "region text, node text, day date, ready_minutes bigint, most_queued integer, "
        "most_parked integer",
        f"""
        SELECT region, node, {_DAY},
            count(DISTINCT date_trunc('minute', received_at)) FILTER (WHERE ready),
            max(queued), max(parked)
        FROM heartbeats WHERE {_BETWEEN} GROUP BY 1, 2, 3
        """,
    ),
    *_report(
        "cost",
        "region text, institution_id text, month date, exams bigint, cost_brl numeric, "
        "revenue_brl numeric",
        """
        SELECT u.region, u.institution_id, u.month, u.exams, u.exams * price.brl_per_exam,
            u.assessed * coalesce(c.brl_per_exam, 0) + coalesce(c.brl_per_month, 0)
        FROM (
            SELECT region, institution_id, date_trunc('month', day)::date AS month,
                sum(exams)::bigint AS exams, sum(assessed)::bigint AS assessed
            FROM usage_between($1, $2) GROUP BY 1, 2, 3
        ) AS u
        LEFT JOIN contracts AS c USING (region, institution_id)
        CROSS JOIN (SELECT coalesce(sum(brl_per_exam), 0) AS brl_per_exam FROM prices) AS price
        """,
    ),
    "GRANT SELECT ON report_usage, report_quality, report_latency, report_availability, "
    "report_cost TO bone_age_reporting",
)


def upgrade() -> None:
    """There are no prices and contracts yet: exams cost and earn nothing."""
    for statement in (*_PRICES, *_REPORTS):
        op.execute(statement.replace(":", r"\:"))
