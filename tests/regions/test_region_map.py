"""The region map, small: the sums are equal everywhere, and every outage was one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.haproxy import BALANCER, needs_haproxy
from tests.peers.orthanc import needs_orthanc
from tests.peers.postgres import needs_postgres
from tests.regions.plan import REGIONS

ROOT = Path(__file__).resolve().parents[2]
EXAMS = 8


@needs_haproxy
@needs_orthanc
@needs_postgres
@pytest.mark.regions
@pytest.mark.timeout(1200)
def test_the_sums_are_equal_everywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.regions", "--exams", str(EXAMS), "--outage", "6",
         "--out", str(tmp_path), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["equal"] is True
    assert [item for item in found["equalities"] if not item["holds"]] == []
    assert [outage["what"] for outage in found["outages"]] == ["centre", "PACS", "node"]
    assert all(outage["behind"] > 0 for outage in found["outages"][:2])
    last = found["moments"][-1]["regions"]
    for region in REGIONS:
        sample = last[region.name]
        assert sample["sent"] == sample["acknowledged"] == sample["centre"] == EXAMS
        assert sample["assessed"] > 0
        assert sample["refused"] > 0
        assert sample["ignored"] == 1
        assert found["traffic"][region.name]["strangers_rejected"] == 2
        assert found["traffic"][region.name]["repeated"] == 2
    assert found["senders_seen_from"]["SP"] == [BALANCER]
    assert found["senders_seen_from"]["RJ"] == ["127.0.0.1"]
    assert (tmp_path / "regions.png").stat().st_size > 10_000
