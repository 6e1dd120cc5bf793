"""From the first byte of a C-STORE to the last report object in the PACS, under the loads of
`make load`, shortened.

``DICOM_NODE_BENCHMARK_FACTOR=1`` runs them at their full length. Writes
`build/benchmarks/end-to-end.json`, and what each load writes.
"""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.results import FOLDER, publish
from tests.load.films import COLUMNS, ROWS
from tests.load.profiles import run_profile

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(14400)]

FULL = os.environ.get("DICOM_NODE_BENCHMARK_FACTOR")
LOADS = (("single", 1.0, 1.0), ("office", 0.1, 4.0), ("users", 0.1, 4.0), ("burst", 0.2, 1.0))
"""Profile, share of its length, and how much faster its exams come: an hour's rate is so low that
four times of it still leaves a node idle in between."""
LARGE = (2500, 2048)
"""10 MB, for exams that come alone."""


def test_every_exam_is_reported_in_time() -> None:
    rows, broken = [], []
    for name, factor, speed in LOADS:
        rows_of_image, columns = LARGE if name == "single" else (ROWS, COLUMNS)
        outcome = run_profile(
            name,
            factor=float(FULL) if FULL else factor,
            speed=1.0 if FULL else speed,
            rows=rows_of_image,
            columns=columns,
            target=FOLDER / "loads",
        )
        broken += [f"{name}: {words}" for words in outcome.broken_promises()]
        rows.append(
            {
                "load": name,
                "exams": outcome.sent,
                "associations": outcome.associations,
                "reported": outcome.reported,
                "C-STORE P50, s": outcome.store["p50"],
                "C-STORE P95, s": outcome.store["p95"],
                "C-STORE P99, s": outcome.store["p99"],
                "to the report P50, s": outcome.end_to_end["p50"],
                "to the report P95, s": outcome.end_to_end["p95"],
                "to the report P99, s": outcome.end_to_end["p99"],
                "exams/s until the last report": outcome.reported / outcome.seconds,
                "memory, MB": sum(outcome.resident_mb.values()),
            }
        )
    publish("end-to-end", "C-STORE to report", rows, bars="to the report P95, s")
    assert broken == []
