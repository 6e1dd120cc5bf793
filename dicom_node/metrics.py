"""The node's Prometheus metrics, counted across its processes.

Each process calls :func:`activate` first; before that, as in tests and offline commands, nothing is
counted. Labels are enum members and configured names: never text that a peer or a header gave.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, NodeError
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState, Stage
from dicom_node.metric_table import METRICS, Metric
from dicom_node.ports import Backlog

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

_OUTBOX = (
    "dicom_node_outbox_exams",
    "dicom_node_outbox_refused",
    "dicom_node_outbox_oldest_seconds",
)
_WAITING = (JobState.QUEUED, JobState.LEASED, JobState.PARKED)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the ledger and the disk say at the time of a scrape. A stage or state that is missing
    counts as 0."""

    jobs: Mapping[tuple[Stage, JobState], int]
    oldest_job_seconds: Mapping[Stage, float]
    oldest_parked_job_seconds: Mapping[Stage, float]
    audit_waiting: int
    disk_used_bytes: int
    disk_size_bytes: int
    backlog: Backlog | None = None
    """What waits for the centre; None without one."""


_live: dict[str, Any] = {}
_directory: Path | None = None
_FILES = ("counter", "gauge_livesum", "histogram")
_FILE_BYTES = 256 * 1024


def clear(directory: Path) -> None:
    """Start the node's counters at 0: for the supervisor, before its first child."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()


def activate(directory: Path, process: str) -> None:
    """Count in this process from now on, in files below ``directory`` that carry its name.

    ``process``: unique among the running processes; one that starts again under its name goes on
    counting. Raises ``OSError`` when the files cannot be made.
    """
    global _directory  # noqa: PLW0603 - metrics are one per process
    from prometheus_client import values

    for kind in _FILES:
        _reserve(directory / f"{kind}_{process}.db")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # The library chooses at its import; this holds whoever imported it before.
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]  # it has no types
    _directory = directory
    _live.update((metric.name, _create(metric)) for metric in METRICS if not metric.at_scrape)


def _reserve(file: Path) -> None:
    """Make the file with real blocks: the library writes through a memory map, and a write to a
    hole on a full disk ends the process by SIGBUS."""
    if not file.exists():
        unfinished = file.with_suffix(".new")
        with unfinished.open("wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, _FILE_BYTES)
        unfinished.rename(file)


def forget_process(process: str) -> None:
    """A process has ended: its open associations are gone, its counts stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(process, str(_activated()))  # type: ignore[no-untyped-call]  # it has no types


def association_answered(result: StrEnum) -> None:
    """An association was accepted, or rejected for the reason that ``result`` names."""
    _count("dicom_node_associations_total", result=result.value)


def connection_cut(reason: StrEnum) -> None:
    """A connection broke a limit."""
    _count("dicom_node_connections_cut_total", reason=reason.value)


def association_opened() -> None:
    """One more open association; :func:`association_closed` must follow."""
    _count("dicom_node_associations_open")


def association_closed() -> None:
    """One open association fewer."""
    _count("dicom_node_associations_open", -1)


def cstore_answered(status: int, *, received_bytes: int) -> None:
    """A C-STORE was answered with ``status`` (0000,0900)."""
    _count("dicom_node_cstore_total", status=f"0x{status:04X}")
    _count("dicom_node_received_bytes_total", received_bytes)


def object_quarantined(status: int) -> None:
    """An object that was answered with ``status`` (0000,0900) is kept for a person."""
    _count("dicom_node_quarantined_total", status=f"0x{status:04X}")


def answer_held_back(seconds: float) -> None:
    """A C-STORE response waits because its institution sends too fast."""
    _count("dicom_node_held_back_seconds_total", seconds)


def stage_finished(stage: Stage, result: str, seconds: float) -> None:
    """One attempt ended; ``result`` is one of the worker's words."""
    _observe("dicom_node_stage_seconds", seconds, stage=stage.value, result=result)


def exam_ended(
    outcome: Outcome, reason: Reason | None = None, *, before: Outcome = Outcome.PENDING
) -> None:
    """An exam was assessed, not assessed or ignored; one that had ended ``before`` is not counted
    again."""
    if before is Outcome.PENDING:
        _count("dicom_node_exams_total", outcome=outcome.value, reason=reason or "")


def exam_delivered(seconds: float) -> None:
    """A destination has the whole report, ``seconds`` after the C-STORE."""
    _observe("dicom_node_exam_seconds", seconds)


def delivery_answered(destination: str, verdict: Verdict) -> None:
    """A destination (its configured name) answered a report object."""
    _count("dicom_node_deliveries_total", destination=destination, verdict=verdict.value)


def report_lost(destination: str) -> None:
    """A destination (its configured name) does not keep a report that it said it stored."""
    _count("dicom_node_reports_lost_total", destination=destination)


def job_parked(stage: Stage, fault: Fault) -> None:
    """A job waits for a person."""
    _count("dicom_node_jobs_parked_total", stage=stage.value, fault=fault.value)


def engine_event(event: StrEnum) -> None:
    """The engine of this process met what ``event`` names."""
    _count("dicom_node_inference_events_total", event=event.value)


def network_runs_on(device: Literal["cpu", "cuda"]) -> None:
    """The network of this process runs on ``device`` from now on."""
    for name in ("cpu", "cuda"):
        _set("dicom_node_inference_workers", int(name == device), device=name)


def destination_silent(destination: str, *, silent: bool) -> None:
    """Whether a destination is only probed."""
    _set("dicom_node_destinations_silent", int(silent), destination=destination)


def central_silent(*, silent: bool) -> None:
    """Whether the centre cannot be told anything."""
    _set("dicom_node_central_silent", int(silent))


def purged(*, images: int, reports: int) -> None:
    """Images, and exams' reports, whose time was over are gone."""
    _count("dicom_node_purged_total", images, kind="image")
    _count("dicom_node_purged_total", reports, kind="reports")


def archived(*, images: int, reports: int) -> None:
    """Images and report objects are in the archive."""
    _count("dicom_node_archived_total", images, kind="image")
    _count("dicom_node_archived_total", reports, kind="report")


def archive_silent(*, silent: bool) -> None:
    """Whether nothing can be archived."""
    _set("dicom_node_archive_silent", int(silent))


def process_restarted(process: str) -> None:
    """A process of the node (its name) ended unasked."""
    _count("dicom_node_process_restarts_total", process=process)


def audit_failed() -> None:
    """A message of the audit trail is lost."""
    _count("dicom_node_audit_failed_total")


def audit_forwarded(messages: int) -> None:
    """Messages of the audit trail are where they stay."""
    _count("dicom_node_audit_forwarded_total", messages)


def exposition(read: Callable[[], Reading]) -> bytes:
    """The whole node's metrics in the Prometheus text format.

    When ``read`` fails with a ``NodeError`` or ``OSError``, the metrics that come from it are
    absent and the counters are still there. Raises ``RuntimeError`` before :func:`activate`.
    """
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess

    registry = CollectorRegistry()
    path = str(_activated())
    multiprocess.MultiProcessCollector(registry, path)  # type: ignore[no-untyped-call]  # it has no types
    registry.register(_AtScrape(read))
    return generate_latest(registry)


class _AtScrape:
    """Collector of the metrics that are computed when Prometheus asks."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering does not read."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family per metric of the table."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            samples = _samples(self._read())
        except (NodeError, OSError):
            return
        for metric in (metric for metric in METRICS if metric.at_scrape):
            family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for labels, value in samples[metric.name]:
                family.add_metric(labels, value)
            yield family


def _samples(reading: Reading) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    """Metric name to its label values and numbers."""
    jobs = {(stage, state): 0 for stage in Stage for state in _WAITING} | dict(reading.jobs)
    oldest = dict.fromkeys(Stage, 0.0) | dict(reading.oldest_job_seconds)
    parked = dict.fromkeys(Stage, 0.0) | dict(reading.oldest_parked_job_seconds)
    return {
        **_outbox_samples(reading.backlog),
        "dicom_node_jobs": [((stage, state), count) for (stage, state), count in jobs.items()],
        "dicom_node_oldest_job_seconds": [((stage,), age) for stage, age in oldest.items()],
        "dicom_node_oldest_parked_job_seconds": [((stage,), age) for stage, age in parked.items()],
        "dicom_node_audit_waiting": [((), reading.audit_waiting)],
        "dicom_node_disk_used_bytes": [((), reading.disk_used_bytes)],
        "dicom_node_disk_size_bytes": [((), reading.disk_size_bytes)],
    }


def _outbox_samples(
    backlog: Backlog | None,
) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    if backlog is None:
        return {name: [] for name in _OUTBOX}
    oldest = time.time() - backlog.oldest_at.timestamp() if backlog.oldest_at else 0.0
    numbers = (backlog.waiting, backlog.refused, max(0.0, oldest))
    return {name: [((), number)] for name, number in zip(_OUTBOX, numbers, strict=True)}


def _count(name: str, amount: float = 1, **labels: str) -> None:
    if name in _live:
        _child(name, labels).inc(amount)


def _set(name: str, value: float, **labels: str) -> None:
    if name in _live:
        _child(name, labels).set(value)


def _observe(name: str, seconds: float, **labels: str) -> None:
    if name in _live:
        _child(name, labels).observe(seconds)


def _child(name: str, labels: dict[str, str]) -> Any:
    return _live[name].labels(**labels) if labels else _live[name]


def _activated() -> Path:
    if _directory is None:
        raise RuntimeError("no metrics in this process: call metrics.activate(directory) first")
    return _directory


def _create(metric: Metric) -> Any:
    from prometheus_client import Counter, Gauge, Histogram

    if metric.kind == "counter":
        return Counter(metric.name, metric.meaning, metric.labels, registry=None)
    if metric.kind == "gauge":
        return Gauge(
            metric.name, metric.meaning, metric.labels, registry=None, multiprocess_mode="livesum"
        )
    return Histogram(
        metric.name, metric.meaning, metric.labels, registry=None, buckets=metric.buckets
    )
