"""Every Prometheus metric of the node, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_EXAM_BUCKETS = (0.5, 1, 2, 3, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One time series family. ``at_scrape``: computed when asked, not counted by the processes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    at_scrape: bool = False


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", meaning=meaning, labels=labels)


def _seconds(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name=name, kind="histogram", meaning=meaning, labels=labels, buckets=buckets)


def _at_scrape(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", meaning=meaning, labels=labels, at_scrape=True)


METRICS: tuple[Metric, ...] = (
    _counter("dicom_node_associations_total", "Answers to association requests", "result"),
    Metric(name="dicom_node_associations_open", kind="gauge", meaning="Associations open now"),
    _counter("dicom_node_cstore_total", "Answers to C-STORE requests", "status"),
    _counter("dicom_node_quarantined_total", "Objects that could not be understood", "status"),
    _counter("dicom_node_received_bytes_total", "Bytes of objects answered by a C-STORE response"),
    _counter("dicom_node_connections_cut_total", "Connections that broke a limit", "reason"),
    _counter(
        "dicom_node_held_back_seconds_total", "How long answers to fast institutions were held back"
    ),
    _seconds(
        "dicom_node_stage_seconds", "Duration of one attempt", _STAGE_BUCKETS, "stage", "result"
    ),
    _counter("dicom_node_exams_total", "Exams by what first became of them", "outcome", "reason"),
    _seconds(
        "dicom_node_exam_seconds",
        "From the C-STORE to the first report in a destination",
        _EXAM_BUCKETS,
    ),
    _counter(
        "dicom_node_deliveries_total", "Answers of destinations", "destination", "verdict"
    ),
    _counter(
        "dicom_node_reports_lost_total", "Reports that a destination stored and lost", "destination"
    ),
    _counter("dicom_node_jobs_parked_total", "Jobs left for a person", "stage", "fault"),
    _counter("dicom_node_inference_events_total", "What happened to the engine", "event"),
    Metric(
        name="dicom_node_inference_workers",
        kind="gauge",
        meaning="Workers by what their network runs on now",
        labels=("device",),
    ),
    Metric(
        name="dicom_node_destinations_silent",
        kind="gauge",
        meaning="1 for a destination that is only probed because it does not answer",
        labels=("destination",),
    ),
    Metric(
        name="dicom_node_central_silent",
        kind="gauge",
        meaning="1 while the centre does not answer or does not let the node in",
    ),
    _counter("dicom_node_purged_total", "Exams whose image or reports were purged", "kind"),
    _counter("dicom_node_archived_total", "Objects that went to the archive", "kind"),
    Metric(
        name="dicom_node_archive_silent",
        kind="gauge",
        meaning="1 while the archive does not answer or does not let the node in",
    ),
    _counter("dicom_node_process_restarts_total", "Processes that ended unasked", "process"),
    _counter("dicom_node_audit_failed_total", "Audit messages that could not be recorded"),
    _counter("dicom_node_audit_forwarded_total", "Audit messages that reached their place"),
    _at_scrape("dicom_node_audit_waiting", "Audit messages that wait"),
    _at_scrape("dicom_node_jobs", "Jobs in the ledger that are not done", "stage", "state"),
    _at_scrape("dicom_node_oldest_job_seconds", "Age of the oldest job that waits", "stage"),
    _at_scrape("dicom_node_oldest_parked_job_seconds", "Age of the oldest parked job", "stage"),
    _at_scrape("dicom_node_outbox_exams", "Exams of which the centre does not know all"),
    _at_scrape("dicom_node_outbox_refused", "Exams that the centre does not take"),
    _at_scrape("dicom_node_outbox_oldest_seconds", "How long the oldest of them has waited"),
    _at_scrape("dicom_node_disk_used_bytes", "Used space of the data folder's file system"),
    _at_scrape("dicom_node_disk_size_bytes", "Size of the data folder's file system"),
)  # fmt: skip
