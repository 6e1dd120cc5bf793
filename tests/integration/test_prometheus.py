"""The real Prometheus accepts, scrapes and answers from the node's metrics."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import values

from dicom_node import metrics
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState, Stage
from dicom_node.health import HealthServer
from dicom_node.metrics import Reading
from tests.integration.peers import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROMETHEUS = Path("/usr/bin/prometheus")
PROMTOOL = Path("/usr/bin/promtool")
needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS.exists() and PROMTOOL.exists()),
    reason=f"{PROMETHEUS} or {PROMTOOL} is missing: apt-get install prometheus",
)
READING = Reading(
    jobs={(Stage.DELIVER, JobState.PARKED): 2},
    oldest_job_seconds={Stage.DELIVER: 1200.0},
    oldest_parked_job_seconds={Stage.DELIVER: 1200.0},
    audit_waiting=200,
    disk_used_bytes=10**9,
    disk_size_bytes=10**10,
)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric of the node has been used once."""
    folder = tmp_path / "metrics"
    monkeypatch.setattr(metrics, "_live", {})
    monkeypatch.setattr(metrics, "_directory", None)
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    metrics.clear(folder)
    metrics.activate(folder, "supervisor")
    metrics.association_answered(Outcome.ASSESSED)
    metrics.association_opened()
    metrics.cstore_answered(0, received_bytes=8_000_000)
    metrics.stage_finished(Stage.INFER, "done", 0.4)
    metrics.exam_ended(Outcome.IGNORED, Reason.OTHER_MODALITY)
    metrics.exam_delivered(4.2)
    metrics.delivery_answered("pacs", Verdict.STORED)
    metrics.job_parked(Stage.DELIVER, Fault.DESTINATION_REFUSED)
    metrics.process_restarted("worker-1")


@pytest.fixture
def prometheus(counted: None, tmp_path: Path) -> Iterator[str]:
    """Address of a Prometheus that scrapes a health server each second."""
    server = HealthServer(
        port=0,
        bind="127.0.0.1",
        checks={},
        live=lambda: None,
        metrics=lambda: metrics.exposition(lambda: READING),
    )
    server.start()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n  - job_name: node\n    scrape_interval: 1s\n    scrape_timeout: 1s\n"
        f"    static_configs:\n      - targets: ['127.0.0.1:{server.bound_port}']\n",
        encoding="utf-8",
    )
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield address
    process.terminate()
    process.wait(30)
    server.stop()


def query(address: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series that an expression gives now; nothing while it starts."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as refused:  # it starts, or the expression is wrong
        refused.close()
        return []
    except urllib.error.URLError:
        return []
    return [(series["metric"], float(series["value"][1])) for series in result]


def wait_for(address: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """What an expression gives as soon as it gives something, within 30 seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := query(address, expression):
            return found
        time.sleep(0.1)
    pytest.fail(f"Prometheus has nothing for {expression}")


@needs_prometheus
def test_promtool_has_nothing_to_say_against_the_metrics(counted: None) -> None:
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=metrics.exposition(lambda: READING),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@needs_prometheus
def test_promtool_would_object() -> None:
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=b"# TYPE requests counter\nrequests 1\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode != 0


@needs_prometheus
def test_prometheus_scrapes_the_node_and_answers_the_documents_questions(prometheus: str) -> None:
    wait_for(prometheus, "up == 1")
    wait_for(prometheus, "dicom_node_cstore_total")
    assert query(prometheus, "sum(dicom_node_jobs{state='parked'})")[0][1] == 2
    assert query(prometheus, "dicom_node_disk_used_bytes / dicom_node_disk_size_bytes")[0][1] == 0.1
    (stage,) = query(prometheus, "dicom_node_stage_seconds_count")
    assert (stage[0]["stage"], stage[0]["result"], stage[1]) == ("infer", "done", 1)
    document = (DOCS / "metrics.md").read_text(encoding="utf-8")
    questions = document.split("## Questions and answers", 1)[1]
    expressions = re.findall(r"\| `([^`]+)` \|$", questions, re.MULTILINE)
    assert expressions
    for expression in expressions:
        wait_for(prometheus, f"count({expression}) or vector(0)")
    within = wait_for(
        prometheus,
        'dicom_node_exam_seconds_bucket{le="300.0"} / ignoring(le) dicom_node_exam_seconds_count',
    )
    assert within[0][1] == 1
