"""The node's metrics add up across processes, survive crashes and hold no text from outside."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from dicom_node import metrics
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.job import JobState, Stage
from dicom_node.metric_table import METRICS
from dicom_node.metrics import Reading
from dicom_node.ports import Backlog

REPOSITORY = Path(__file__).resolve().parents[2]
READING = Reading(
    jobs={(Stage.DELIVER, JobState.PARKED): 2},
    oldest_job_seconds={Stage.INFER: 12.5},
    oldest_parked_job_seconds={Stage.DELIVER: 90.5},
    audit_waiting=5,
    disk_used_bytes=3,
    disk_size_bytes=4,
)
EVERYTHING = """
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import Stage
metrics.association_answered(Outcome.IGNORED)
metrics.association_opened()
metrics.answer_held_back(0.5)
metrics.audit_failed()
metrics.audit_forwarded(3)
metrics.connection_cut(Outcome.IGNORED)
metrics.cstore_answered(0xA700, received_bytes=100)
metrics.stage_finished(Stage.INFER, "done", 0.2)
metrics.exam_ended(Outcome.NOT_ASSESSED, Reason.SEX_MISSING)
metrics.exam_delivered(4.0)
metrics.delivery_answered("pacs", Verdict.STORED)
metrics.report_lost("pacs")
metrics.job_parked(Stage.DELIVER, Fault.DESTINATION_REFUSED)
metrics.engine_event(Outcome.IGNORED)
metrics.network_runs_on("cpu")
metrics.destination_silent("pacs", silent=True)
metrics.central_silent(silent=True)
metrics.object_quarantined(0xC000)
metrics.process_restarted("worker-1")
metrics.purged(images=3, reports=2)
metrics.archived(images=1, reports=2)
metrics.archive_silent(silent=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cleared metrics folder in which this process counts under the name ``supervisor``."""
    monkeypatch.setattr(metrics, "_live", {})
    monkeypatch.setattr(metrics, "_directory", None)
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.clear(tmp_path)
    metrics.activate(tmp_path, "supervisor")
    return tmp_path


def count_in_process(folder: Path, process: str, code: str) -> int:
    """Run counting code in another process of the node; its exit status."""
    program = (
        "import os, signal; from pathlib import Path; from dicom_node import metrics\n"
        f"metrics.activate(Path({str(folder)!r}), {process!r})\n{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, timeout=60, check=False
    ).returncode


def scrape(read: Callable[[], Reading] = lambda: READING) -> dict[str, dict[str, float]]:
    """Sample name to label values (sorted by label, joined by commas) to number."""
    samples: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics.exposition(read).decode()):
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


def test_the_exposition_holds_exactly_the_table(folder: Path) -> None:
    assert count_in_process(folder, "receiver", EVERYTHING) == 0
    text = metrics.exposition(lambda: READING).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels - {"le"} == set(metric.labels)


def test_processes_are_summed(folder: Path) -> None:
    for process in ("receiver-1", "receiver-2"):
        assert count_in_process(folder, process, EVERYTHING) == 0
    found = scrape()
    assert found["dicom_node_cstore_total"] == {"0xA700": 2}
    assert found["dicom_node_received_bytes_total"] == {"": 200}
    assert found["dicom_node_associations_open"] == {"": 2}
    assert found["dicom_node_stage_seconds_count"] == {"done,infer": 2}
    assert found["dicom_node_stage_seconds_sum"]["done,infer"] == pytest.approx(0.4)
    assert found["dicom_node_exams_total"] == {"not_assessed,sex_missing": 2}


def test_a_process_that_is_killed_and_starts_again_goes_on_counting(folder: Path) -> None:
    killed = EVERYTHING + "os.kill(os.getpid(), signal.SIGKILL)"
    assert count_in_process(folder, "receiver", killed) == -signal.SIGKILL
    assert count_in_process(folder, "receiver", EVERYTHING) == 0
    assert scrape()["dicom_node_cstore_total"] == {"0xA700": 2}
    assert len(list(folder.glob("counter_*.db"))) == 2


def test_a_dead_process_holds_no_associations_open(folder: Path) -> None:
    count_in_process(folder, "receiver", EVERYTHING)
    assert scrape()["dicom_node_associations_open"] == {"": 1}
    metrics.forget_process("receiver")
    found = scrape()
    assert found["dicom_node_associations_open"] == {"": 0}
    assert found["dicom_node_cstore_total"] == {"0xA700": 1}


def test_an_association_that_closes_is_not_open(folder: Path) -> None:
    metrics.association_opened()
    metrics.association_opened()
    metrics.association_closed()
    assert scrape()["dicom_node_associations_open"] == {"": 1}


def test_each_worker_counts_for_the_device_that_it_uses_now(folder: Path) -> None:
    assert count_in_process(folder, "worker-0", 'metrics.network_runs_on("cuda")') == 0
    assert count_in_process(folder, "worker-1", 'metrics.network_runs_on("cuda")') == 0
    metrics.network_runs_on("cuda")
    metrics.network_runs_on("cpu")
    assert scrape()["dicom_node_inference_workers"] == {"cpu": 1, "cuda": 2}


def test_a_cleared_folder_counts_from_zero(folder: Path) -> None:
    count_in_process(folder, "receiver", EVERYTHING)
    metrics.clear(folder)
    metrics.activate(folder, "supervisor")
    assert "dicom_node_cstore_total" not in scrape()


def test_the_files_own_their_blocks_so_that_a_full_disk_cannot_kill_a_writer(folder: Path) -> None:
    files = list(folder.glob("*.db"))
    assert len(files) == 3
    for file in files:
        facts = file.stat()
        assert facts.st_blocks * 512 >= facts.st_size >= 256 * 1024


def test_every_label_set_of_a_process_fits_its_file(folder: Path) -> None:
    for stage in Stage:
        for result in ("done", "retry", "parked", "lost"):
            metrics.stage_finished(stage, result, 1.0)
        for fault in Fault:
            metrics.job_parked(stage, fault)
    assert {file.stat().st_size for file in folder.glob("*.db")} == {256 * 1024}


def test_what_the_ledger_says_is_computed_at_scrape_time(folder: Path) -> None:
    found = scrape()
    assert found["dicom_node_jobs"]["deliver,parked"] == 2
    assert found["dicom_node_jobs"]["screen,queued"] == 0
    assert found["dicom_node_oldest_job_seconds"] == {
        "screen": 0,
        "infer": 12.5,
        "report": 0,
        "deliver": 0,
        "confirm": 0,
    }
    assert found["dicom_node_oldest_parked_job_seconds"]["deliver"] == 90.5
    assert found["dicom_node_oldest_parked_job_seconds"]["infer"] == 0
    assert found["dicom_node_audit_waiting"] == {"": 5}
    assert found["dicom_node_disk_used_bytes"] == {"": 3}
    assert found["dicom_node_disk_size_bytes"] == {"": 4}


@pytest.mark.parametrize("error", [Transient(Fault.STORAGE_UNAVAILABLE, "no"), OSError("no")])
def test_the_counters_are_served_when_the_ledger_cannot_be_read(
    folder: Path, error: Exception
) -> None:
    def read() -> Reading:
        raise error

    metrics.cstore_answered(0, received_bytes=1)
    found = scrape(read)
    assert "dicom_node_jobs" not in found
    assert found["dicom_node_cstore_total"] == {"0x0000": 1}


def test_before_activation_nothing_is_counted_and_nothing_can_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_live", {})
    monkeypatch.setattr(metrics, "_directory", None)
    metrics.cstore_answered(0, received_bytes=1)
    metrics.stage_finished(Stage.INFER, "done", 1.0)
    with pytest.raises(RuntimeError, match="activate"):
        metrics.exposition(lambda: READING)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        metrics.activate(tmp_path / "missing", "supervisor")


def test_every_counting_function_is_called_somewhere_in_the_node() -> None:
    ours = REPOSITORY / "dicom_node" / "metrics.py"
    counting = {
        node.name
        for node in ast.parse(ours.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for path in (REPOSITORY / "dicom_node").rglob("*.py")
        if path != ours
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert counting - called == set()


def test_what_waits_for_the_centre_is_shown_where_there_is_one(folder: Path) -> None:
    assert "\ndicom_node_outbox_exams " not in metrics.exposition(lambda: READING).decode()
    backlog = Backlog(waiting=3, oldest_at=datetime.now(UTC) - timedelta(hours=1), refused=1)
    told = replace(READING, backlog=backlog)
    text = metrics.exposition(lambda: told).decode()
    assert "dicom_node_outbox_exams 3.0" in text
    assert "dicom_node_outbox_refused 1.0" in text
    [age] = [line for line in text.splitlines() if line.startswith("dicom_node_outbox_oldest")]
    assert 3600 <= float(age.split()[1]) < 3660
