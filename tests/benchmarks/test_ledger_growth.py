"""What the ledger costs as it grows: the same steps beside a thousand, 100,000 and a million exams.

``DICOM_NODE_BENCHMARK_LEDGER`` says how many at the end. Writes `build/benchmarks/ledger.json`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median

import pytest

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from tests.benchmarks.results import publish
from tests.builders.exams import WAY, claim_one, complete, instance

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

LAST = int(os.environ.get("DICOM_NODE_BENCHMARK_LEDGER", "1000000"))
SIZES = [size for size in (1_000, 100_000, 1_000_000) if size <= LAST]
ROUNDS = 40
BATCH = 50_000
FLAT = ("receive", "claim", "complete", "exam show", "bare transaction")
MAX_RATIO = 2.0

GROW = """
    CREATE TEMP TABLE made AS
        WITH RECURSIVE numbers(n) AS (
            SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {stop}
        )
        SELECT n, 1700000000.0 + n AS at, printf('2.25.%030d', n) AS uid,
            printf('%064x', n) AS hash FROM numbers;
    INSERT INTO instances (instance_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid,
        content_sha256, size_bytes, calling_ae_title, peer_address, institution_id, received_at)
        SELECT n, '1.2.840.10008.5.1.4.1.1.1', uid, '1.2.840.10008.1.2.1', hash,
        10000000, 'MODALITY', '192.0.2.7', 'hospital-' || n % 5, at FROM made;
    INSERT INTO exams (exam_id, instance_id, study_instance_uid, outcome, sex, laterality,
        view_position, chronological_age_months, patient_pseudonym, study_date)
        SELECT n, n, uid || '.1', 'assessed', 'M', 'L', 'PA', 120, hash, '2026-03-01' FROM made;
    INSERT INTO predictions (exam_id, bone_age_months, sd_months, hand_left, hand_top, hand_right,
        hand_bottom, model_name, model_version, model_sha256)
        SELECT n, 100 + n % 50, 7, 1, 1, 900, 900, 'm', '1', hash FROM made;
    INSERT INTO jobs (exam_id, stage, destination, state, attempt, crashes, created_at, run_after,
        detail) SELECT n, stage, CASE stage WHEN 'deliver' THEN 'pacs' ELSE '' END, 'done', 1, 0,
            at, at, '' FROM made, (SELECT 'screen' AS stage UNION ALL SELECT 'infer'
            UNION ALL SELECT 'report' UNION ALL SELECT 'deliver');
    INSERT INTO reports (exam_id, revision, kind, sop_class_uid, sop_instance_uid,
        series_instance_uid, encoded)
        SELECT n, 1, kind, '1.2.840.10008.5.1.4.1.1.88.34', uid || '.' || kind, uid || '.2',
            zeroblob(200) FROM made, (SELECT 'measurements' AS kind UNION ALL SELECT 'narrative');
    INSERT INTO deliveries (sop_instance_uid, destination, status, verdict, sent_sop_class_uid,
        sent_sop_instance_uid, answered_at)
        SELECT uid || '.' || kind, 'pacs', 0, 'stored', '1.2.840.10008.5.1.4.1.1.88.34',
            uid || '.' || kind, at
        FROM made, (SELECT 'measurements' AS kind UNION ALL SELECT 'narrative');
    INSERT INTO journal (exam_id, at, event, detail)
        SELECT n, at, 'claimed', 'job=1 stage=screen attempt=1 owner=worker-0'
        FROM made, (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL
            SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9
            UNION ALL SELECT 10);
    DROP TABLE made;
"""
"""Exams that were assessed, reported and delivered, as the node leaves them; the bytes of their
reports are short."""


def grow(path: Path, first: int, stop: int) -> None:
    """In transactions of their own, so that the log beside the file stays short."""
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for begin in range(first, stop, BATCH):
            connection.execute("BEGIN")
            for statement in GROW.format(first=begin, stop=min(begin + BATCH, stop)).split(";"):
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def exams_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        [number] = connection.execute("SELECT coalesce(max(exam_id), 0) FROM exams").fetchone()
    connection.close()
    return int(number)


class Timer:
    """Collects durations by name."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = {}

    def __call__(self, name: str, run: Callable[[], object]) -> object:
        begun = time.perf_counter()
        found = run()
        self.took.setdefault(name, []).append(time.perf_counter() - begun)
        return found


def measure(path: Path, numbers: Iterator[int], size: int) -> dict[str, float]:
    """Median seconds of each operation."""
    ledger, operator = SqlLedger(path, SystemClock()), OperatorLedger(path, SystemClock())
    bare = sqlite3.connect(path.with_suffix(".bare"), isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE IF NOT EXISTS rows (what TEXT)")
    timer = Timer()
    for number in numbers:
        timer("bare transaction", lambda: bare.execute("INSERT INTO rows VALUES ('x')"))
        timer("receive", lambda number=number: ledger.record_instance(instance(number)))  # type: ignore[misc]
        for stage in WAY:
            job = timer("claim", lambda stage=stage: claim_one(ledger, stage))  # type: ignore[misc]
            timer("complete", lambda job=job: complete(ledger, job))  # type: ignore[misc]
        shown = 1 + number * 7919 % size
        timer("exam show", lambda shown=shown: operator.exam_details(shown))  # type: ignore[misc]
    for _ in range(5):
        timer("status: queues", operator.queue_depths)
        timer("status: outcomes", operator.outcome_counts)
        timer("status: last exams", lambda: operator.exams(limit=10))
    ledger.close()
    operator.close()
    bare.close()
    return {name: median(values) for name, values in timer.took.items()}


def test_a_claim_costs_the_same_beside_a_million_exams(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    migrate(path)
    numbers = count(10_000_000)
    found: dict[int, dict[str, float]] = {}
    for size in SIZES:
        grow(path, exams_in(path) + 1, size + 1)
        found[size] = measure(path, (next(numbers) for _ in range(ROUNDS)), size)
    rows = [
        {
            "operation": name,
            **{f"beside {size:,}, ms": took[name] * 1000 for size, took in found.items()},
            "ratio of times": found[SIZES[-1]][name] / found[SIZES[0]][name],
            "ratio to a bare transaction": found[SIZES[-1]][name]
            / found[SIZES[-1]]["bare transaction"],
        }
        for name in found[SIZES[0]]
    ]
    size_mb = path.stat().st_size / 1e6
    title = f"ledger of {SIZES[-1]:,} exams, {size_mb:,.0f} MB, medians of {ROUNDS}"
    publish("ledger", title, rows, bars="ratio of times")
    flat = {str(row["operation"]): float(str(row["ratio of times"])) for row in rows}
    assert all(flat[name] < MAX_RATIO for name in FLAT), flat
