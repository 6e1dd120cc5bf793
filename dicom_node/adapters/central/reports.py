"""What the business asks, from the views of the central database or of a replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import text

from dicom_node.adapters.central.database import OWNER_SECONDS, CentralDatabase


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which exams: received on days from ``since`` up to and without ``until``, of one region or
    institution or of all."""

    since: date
    until: date
    region: str | None = None
    institution: str | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of a report."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


_REGION = "(CAST(:region AS text) IS NULL OR region = :region)"
_EXAMS = f"{_REGION} AND (CAST(:institution AS text) IS NULL OR institution_id = :institution)"

QUERIES: dict[str, dict[str, str]] = {
    "usage": {
        "exams_a_day": f"""
            SELECT day, region, institution_id AS institution, exams, assessed, not_assessed,
                ignored
            FROM usage_between(:since, :until) WHERE {_EXAMS} ORDER BY day, region, institution_id
        """,
    },
    "quality": {
        "outcomes": f"""
            SELECT outcome, reason, sum(exams)::bigint AS exams,
                round(100 * sum(exams) / sum(sum(exams)) OVER (), 2)::real AS percent
            FROM quality_between(:since, :until) WHERE {_EXAMS} GROUP BY outcome, reason
            ORDER BY exams DESC, outcome, reason
        """,
        "bone_ages": f"""
            SELECT bone_age_years, sum(exams) FILTER (WHERE sex = 'F')::bigint AS girls,
                sum(exams) FILTER (WHERE sex = 'M')::bigint AS boys,
                (sum(mean_sd_months * exams) / sum(exams))::real AS mean_sd_months,
                (sum(mean_z_score * exams_with_z) / nullif(sum(exams_with_z), 0))::real
                    AS mean_z_score
            FROM quality_between(:since, :until) WHERE {_EXAMS} AND bone_age_years IS NOT NULL
            GROUP BY bone_age_years ORDER BY bone_age_years
        """,
    },
    "latency": {
        "seconds": f"""
            SELECT stage, count(*) AS exams,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::real AS p50,
                percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)::real AS p95,
                percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds)::real AS p99
            FROM latency_between(:since, :until) WHERE {_EXAMS} GROUP BY stage
            ORDER BY array_position(ARRAY['screen', 'infer', 'report', 'total'], stage)
        """,
        "availability": f"""
            SELECT region, node, count(*) AS days,
                round(100.0 * sum(ready_minutes) / (1440 * count(*)), 3)::real AS ready_percent,
                max(most_queued) AS most_queued, max(most_parked) AS most_parked
            FROM availability_between(:since, :until) WHERE {_REGION}
            GROUP BY region, node ORDER BY region, node
        """,
    },
    "cost": {
        "months": f"""
            SELECT month, region, institution_id AS institution, exams, cost_brl, revenue_brl,
                revenue_brl - cost_brl AS margin_brl, cost_brl / exams AS cost_brl_per_exam
            FROM cost_between(:since, :until) WHERE {_EXAMS}
            ORDER BY month, region, institution_id
        """,
    },
}

"""Report to section to its query, whose column names are keys of the catalogue of texts."""

REPORTS: tuple[str, ...] = tuple(QUERIES)
"""Names of the reports."""


class CentralReports:
    """Reads as a role of ``bone_age_reporting``."""

    def __init__(self, url: str, *, password_file: Path | None = None) -> None:
        self._database = CentralDatabase(url, password_file, seconds=OWNER_SECONDS)

    def read(self, report: str, scope: Scope) -> tuple[Section, ...]:
        """The tables of one of :data:`REPORTS`. Raises ``Transient`` (CENTRAL_UNAVAILABLE) and
        ``Permanent`` (CENTRAL_REFUSED)."""
        values = {
            "since": scope.since,
            "until": scope.until,
            "region": scope.region,
            "institution": scope.institution,
        }
        with self._database.transaction() as connection:
            return tuple(
                _section(name, connection.execute(text(query), values))
                for name, query in QUERIES[report].items()
            )


def load_prices(
    url: str,
    *,
    prices: dict[str, float],
    contracts: Sequence[dict[str, Any]],
    password_file: Path | None = None,
) -> None:
    """Replace the price list and the contracts, as the owner. Raises as the reports do, and
    ``Permanent`` (RECORD_REFUSED) for an unknown item or a negative price."""
    database = CentralDatabase(url, password_file, seconds=OWNER_SECONDS)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM prices"))
        connection.execute(text("DELETE FROM contracts"))
        for item, price in prices.items():
            connection.execute(
                text("INSERT INTO prices VALUES (:item, :price)"),
                {"item": item, "price": price},
            )
        for contract in contracts:
            connection.execute(
                text(
                    "INSERT INTO contracts (region, institution_id, brl_per_month, "
                    "brl_per_exam) VALUES (:region, :institution, :brl_per_month, "
                    ":brl_per_exam)"
                ),
                {"brl_per_month": 0, "brl_per_exam": 0, **contract},
            )


def _section(name: str, found: Any) -> Section:
    return Section(name=name, columns=tuple(found.keys()), rows=tuple(tuple(row) for row in found))
