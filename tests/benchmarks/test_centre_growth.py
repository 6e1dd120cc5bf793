"""What the centre costs as it grows: batches and reports of one month beside more and more months.

``DICOM_NODE_BENCHMARK_EXAMS`` says how many exams there are at the end (default: one million), over
``DICOM_NODE_BENCHMARK_MONTHS`` (default: 24), four regions and 20 institutions; a million take
about a gigabyte below /tmp. Writes `build/benchmarks/centre.json` and, of the end,
`build/benchmarks/centre-plans.txt`: what PostgreSQL did for each statement.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text

import inference
from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.reports import REPORTS, CentralReports, Scope
from dicom_node.domain.record import StageTimes
from tests.builders.records import record
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(14_400), needs_postgres]

BUILD = Path(inference.__file__).parent.parent / "build" / "benchmarks"
EXAMS = int(os.environ.get("DICOM_NODE_BENCHMARK_EXAMS", "1000000"))
MONTHS = int(os.environ.get("DICOM_NODE_BENCHMARK_MONTHS", "24"))
ROUNDS, BATCH = 5, 200
REGIONS = ("SP", "RJ", "PE", "BA")
FIRST = 2020 * 12
"""The first month, counted from the year 0: all others come after it is measured alone."""
MEASURED = Scope(since=date(2020, 1, 1), until=date(2020, 2, 1))
SETTINGS = """
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
shared_buffers = 1GB
maintenance_work_mem = 256MB
autovacuum = off
"""
"""Nothing is written twice while the tables are filled; the rest as PostgreSQL comes."""

REFERRED = f"""
    INSERT INTO institutions (region, institution_id)
        SELECT region, 'h-' || n FROM unnest(ARRAY{list(REGIONS)}) AS region,
            generate_series(0, 4) AS n;
    INSERT INTO models VALUES (repeat('ab', 32), 'm', '1');
    SELECT make_partition(region, '2020-01-01') FROM unnest(ARRAY{list(REGIONS)}) AS region;
"""
# of five exams three are assessed and reported
MONTH_OF_A_REGION = """
    CREATE TABLE "exams_{name}" (LIKE exams INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    INSERT INTO "exams_{name}" (region, received_at, exam_pseudonym, node, institution_id,
        patient_pseudonym, key_id, chronological_age_months, sex, outcome, reason, bone_age_months,
        sd_months, z_score, model_sha256, object_kinds, screen_seconds, infer_seconds,
        report_seconds, reported_at)
    SELECT '{region}', at, encode(sha256(('{name}' || n)::bytea), 'hex'), '{node}', 'h-' || n % 5,
        encode(sha256(('{region}' || n / 2)::bytea), 'hex'), '0123456789abcdef', 60 + n % 120,
        CASE n % 2 WHEN 0 THEN 'F' ELSE 'M' END,
        CASE WHEN assessed THEN 'assessed' ELSE 'ignored' END,
        CASE WHEN NOT assessed THEN 'other_modality' END,
        CASE WHEN assessed THEN 60 + 120 * chance END, CASE WHEN assessed THEN 8 END,
        CASE WHEN assessed THEN chance END, CASE WHEN assessed THEN repeat('ab', 32) END,
        CASE WHEN assessed THEN ARRAY['measurements', 'narrative'] ELSE '{{}}' END, chance,
        CASE WHEN assessed THEN chance END, CASE WHEN assessed THEN chance END,
        CASE WHEN assessed THEN at + interval '1 second' END
    FROM (
        SELECT n, '{first}'::timestamptz + n * interval '27 days' / {count} AS at,
            random() AS chance, (n / 7) % 5 < 3 AS assessed
        FROM generate_series(0, {count} - 1) AS n
    ) AS made;
    CREATE TABLE "deliveries_{name}" (LIKE deliveries INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    INSERT INTO "deliveries_{name}"
    SELECT region, received_at, exam_pseudonym, node, 'pacs', 'delivered',
        received_at + interval '2 seconds'
    FROM "exams_{name}" WHERE outcome = 'assessed';
    CREATE TABLE "heartbeats_{name}" (LIKE heartbeats INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    INSERT INTO "heartbeats_{name}"
    SELECT '{region}', at, '{node}', true, 0, 0
    FROM generate_series('{first}'::timestamptz, '{first}'::timestamptz + interval '27 days',
        interval '1 minute') AS at;
"""
ATTACH = """
    ALTER TABLE "{table}_{region}" ATTACH PARTITION "{table}_{name}"
        FOR VALUES FROM ('{first}') TO ('{next}');
"""


def fill(centre: Postgres, region: str, months: range) -> None:
    """Each month in one transaction: its rows, then its indexes."""
    for month in months:
        year, index = divmod(FIRST + month, 12)
        following = divmod(FIRST + month + 1, 12)
        values = {
            "region": region,
            "node": f"{region.lower()}-1",
            "name": f"{region}_{year}_{index + 1:02}",
            "first": f"{year}-{index + 1:02}-01T00:00:00Z",
            "next": f"{following[0]}-{following[1] + 1:02}-01T00:00:00Z",
            "count": EXAMS // MONTHS // len(REGIONS),
        }
        tables = ("exams", "deliveries", "heartbeats")
        attach = "".join(ATTACH.format(table=table, **values) for table in tables)
        centre.sql(
            'DROP TABLE IF EXISTS "{0}_{3}", "{1}_{3}", "{2}_{3}";'.format(*tables, values["name"])
            + MONTH_OF_A_REGION.format(**values)
            + attach,
            timeout_seconds=3600,
        )


def grow(centre: Postgres, months: range) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda region: fill(centre, region, months), REGIONS))
    centre.sql("ANALYZE; CHECKPOINT", role="postgres", timeout_seconds=3600)


class Steps:
    """What is measured, by name; each call does it once more."""

    def __init__(self, centre: Postgres) -> None:
        self._archive = PostgresArchive(centre.url("node_sp"))
        self._reports = CentralReports(centre.url("analyst"))
        self._owner = create_engine(centre.url())
        self._stored = 0
        self.all: dict[str, Callable[[], object]] = {
            f"store {BATCH} exams": self._store,
            f"store {BATCH} exams again": self._store_again,
            "make a month's partitions": self._make_partitions,
            **{f"report {name}": partial(self._reports.read, name, MEASURED) for name in REPORTS},
        }

    def _store(self) -> None:
        self._stored += 1
        self._store_again()

    def _store_again(self) -> None:
        first = self._stored * BATCH
        begin = datetime(2020, 1, 15, tzinfo=UTC)
        records = [
            record(
                number,
                received_at=begin + timedelta(seconds=number),
                times=StageTimes(),
                deliveries=record(number, received_at=begin).deliveries,
            )
            for number in range(first, first + BATCH)
        ]
        self._archive.store(records, batch=self._stored)

    def _make_partitions(self) -> None:
        """And forget them."""
        with self._owner.connect() as connection:
            connection.execute(text("SELECT make_partition('SP', '2019-06-01')"))


def seconds(step: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return median(taken)


def plans(centre: Postgres, name: str, step: Callable[[], object]) -> str:
    """What PostgreSQL did for the statements of a step, those within functions too."""
    roles = ("node_sp", "analyst", "owner")
    explain = {
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_buffers": "on",
        "auto_explain.log_nested_statements": "on",
    }
    for role in roles:
        for setting, value in explain.items():
            centre.sql(f"ALTER ROLE {role} SET {setting} = '{value}'", role="postgres")
    log = centre.folder / "log"
    before = log.stat().st_size
    step()
    for role in roles:
        centre.sql(f"ALTER ROLE {role} RESET ALL", role="postgres")
    logged = log.read_bytes()[before:].decode()
    entries = re.findall(r"LOG:  (duration: .*?ms  plan:\n(?:\t.*\n)+)", logged)
    shown = ["\n".join(line[:200] for line in entry.splitlines()) for entry in entries]
    return "\n\n".join([f"## {name}", *shown])


def pages(plan: str) -> int:
    """Pages of exams, deliveries and heartbeats that the statements of a plan touched."""
    touched, scans = 0, False
    for line in plan.splitlines():
        if "(actual time" in line:
            scans = re.search('Scan.*"(exams|deliveries|heartbeats)_', line) is not None
        elif scans and "Buffers: shared" in line:
            touched += sum(int(count) for count in re.findall(r"(?:hit|read)=(\d+)", line))
            scans = False
    return touched


def test_a_month_costs_the_same_beside_many(tmp_path: Path) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    with running_centre(tmp_path, settings=SETTINGS) as centre:
        centre.sql(REFERRED)
        steps = Steps(centre).all
        found: dict[int, dict[str, float]] = {}
        touched: dict[int, dict[str, int]] = {}
        for months in (range(1), range(1, MONTHS // 4), range(MONTHS // 4, MONTHS)):
            grow(centre, months)
            found[months.stop] = {name: seconds(step) for name, step in steps.items()}
            explained = {name: plans(centre, name, step) for name, step in steps.items()}
            touched[months.stop] = {name: pages(plan) for name, plan in explained.items()}
            result = {"seconds": found, "pages": touched}
            (BUILD / "centre.json").write_text(json.dumps(result, indent=1))
        size = centre.sql("SELECT pg_size_pretty(pg_database_size('bone_age'))")
        count = int(centre.sql("SELECT count(*) FROM exams", timeout_seconds=3600))
    (BUILD / "centre-plans.txt").write_text("\n\n\n".join(explained.values()) + "\n")
    table = Table(title=f"{count:,} exams in {MONTHS} months, {size}: one month; seconds, pages")
    for heading in ("", *(f"of {months}" for months in found)):
        table.add_column(heading, justify="right")
    for name in steps:
        cells = (f"{found[stop][name]:.3f} {touched[stop][name]:>8,}" for stop in found)
        table.add_row(name, *cells)
    Console().print(table)
    for name in (f"report {report}" for report in REPORTS):
        assert 0 < touched[MONTHS][name] < 2 * touched[1][name]
