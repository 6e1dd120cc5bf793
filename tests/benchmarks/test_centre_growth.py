"""What the centre costs as it grows: batches and reports of one month beside more and more months.

``DICOM_NODE_BENCHMARK_EXAMS`` says how many exams there are at the end (default: one million), over
24 months, four regions and 20 institutions. Writes `build/benchmarks/centre.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console
from rich.table import Table

import inference
from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.reports import REPORTS, CentralReports, Scope
from dicom_node.domain.record import StageTimes
from tests.builders.records import record
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200), needs_postgres]

RESULT = Path(inference.__file__).parent.parent / "build" / "benchmarks" / "centre.json"
EXAMS = int(os.environ.get("DICOM_NODE_BENCHMARK_EXAMS", "1000000"))
MONTHS, ROUNDS, BATCH = 24, 5, 200
REGIONS = ("SP", "RJ", "PE", "BA")
MEASURED = Scope(since=date(2024, 1, 1), until=date(2024, 2, 1))
"""The first of the months: all others come after it is measured alone."""

ONE_MONTH = """
    SELECT make_partition(region, '{month}'::timestamptz)
        FROM unnest(ARRAY['SP', 'RJ', 'PE', 'BA']) AS region;
    INSERT INTO institutions (region, institution_id)
        SELECT region, 'h-' || n FROM unnest(ARRAY['SP', 'RJ', 'PE', 'BA']) AS region,
            generate_series(0, 4) AS n ON CONFLICT DO NOTHING;
    INSERT INTO models VALUES (repeat('ab', 32), 'm', '1') ON CONFLICT DO NOTHING;
    WITH made AS (
        SELECT (ARRAY['SP', 'RJ', 'PE', 'BA'])[n % 4 + 1] AS region,
            '{month}'::timestamptz + n * interval '27 days' / {count} AS received_at,
            encode(sha256(('{month}' || n)::bytea), 'hex') AS exam_pseudonym,
            'h-' || (n / 4) % 5 AS institution_id, n, random() AS chance
        FROM generate_series(0, {count} - 1) AS n
    ), kept AS (
        INSERT INTO exams (region, received_at, exam_pseudonym, node, institution_id,
            patient_pseudonym, key_id, chronological_age_months, sex, outcome, bone_age_months,
            sd_months, z_score, model_sha256, object_kinds, screen_seconds, infer_seconds,
            report_seconds, reported_at)
        SELECT region, received_at, exam_pseudonym, 'n', institution_id, exam_pseudonym,
            '0123456789abcdef', 60 + n % 120, CASE n % 2 WHEN 0 THEN 'F' ELSE 'M' END,
            'assessed', 60 + 120 * chance, 8, chance, repeat('ab', 32),
            ARRAY['measurements', 'narrative'], chance, chance, chance,
            received_at + interval '1 second'
        FROM made
    )
    INSERT INTO deliveries (region, received_at, exam_pseudonym, destination, outcome, delivered_at)
        SELECT region, received_at, exam_pseudonym, 'pacs', 'delivered',
            received_at + interval '2 seconds'
        FROM made;
"""


def grow(centre: Postgres, months: range) -> None:
    for month in months:
        first = f"{2024 + month // 12}-{month % 12 + 1:02}-01T12:00:00Z"
        count = EXAMS // MONTHS
        centre.sql(ONE_MONTH.format(month=first, count=count), timeout_seconds=3600)
    centre.sql("ANALYZE", timeout_seconds=3600)


def seconds(step: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return median(taken)


def measure(centre: Postgres, number: int) -> dict[str, float]:
    archive = PostgresArchive(centre.url("node_sp"))
    begin = datetime(2024, 1, 15, tzinfo=UTC)
    batches = iter(range(number * ROUNDS, (number + 1) * ROUNDS))

    def store() -> None:
        batch = next(batches)
        records = [
            record(
                batch * BATCH + offset,
                received_at=begin + timedelta(seconds=batch * BATCH + offset),
                times=StageTimes(),
                deliveries=(),
            )
            for offset in range(BATCH)
        ]
        archive.store(records, batch=batch)

    reports = CentralReports(centre.url("analyst"))
    found = {f"store {BATCH} exams": seconds(store)}
    for name in REPORTS:
        found[f"report {name}"] = seconds(lambda name=name: reports.read(name, MEASURED))  # type: ignore[misc]
    return found


def test_a_month_costs_the_same_beside_many(tmp_path: Path) -> None:
    with running_centre(tmp_path) as centre:
        found: dict[int, dict[str, float]] = {}
        for number, months in enumerate((range(1), range(1, 6), range(6, MONTHS))):
            grow(centre, months)
            found[months.stop] = measure(centre, number)
        size = centre.sql("SELECT pg_size_pretty(pg_database_size('bone_age'))")
        plan = centre.sql(
            "EXPLAIN SELECT count(*) FROM exams WHERE received_at >= '2024-01-01' "
            "AND received_at < '2024-02-01'"
        )
    ratios = {name: found[MONTHS][name] / found[1][name] for name in found[1]}
    table = Table(title=f"{EXAMS:,} exams in {MONTHS} months, {size}: one month, median seconds")
    for heading in ("", *(f"of {months}" for months in found), "ratio"):
        table.add_column(heading, justify="right")
    for name, ratio in ratios.items():
        table.add_row(name, *(f"{took[name]:.3f}" for took in found.values()), f"{ratio:.2f}")
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"exams": EXAMS, "seconds": found, "ratios": ratios}, indent=1))
    assert "2024_02" not in plan
    assert all(ratio < 2 for ratio in ratios.values())
