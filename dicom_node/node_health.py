"""What the node says to probes and to Prometheus about itself."""

from __future__ import annotations

import shutil
import threading
import time

from dicom_node import metrics
from dicom_node.adapters.audit import waiting
from dicom_node.adapters.ledger import OperatorLedger, SqlOutbox
from dicom_node.folders import Folders
from dicom_node.health import HealthServer
from dicom_node.supervisor import Supervisor
from dicom_node.wiring import Wiring

_SILENT_LOOP_SECONDS = 10.0


def health_server(wiring: Wiring, supervisor: Supervisor, stop: threading.Event) -> HealthServer:
    """Answers on the configured port once it is started."""
    settings, folders = wiring.settings, wiring.folders
    operator = OperatorLedger(folders.ledger, wiring.clock)
    begun = time.monotonic()
    outbox = wiring.outbox if wiring.centre else None

    def processes() -> str | None:
        waiting = [child.spec.name for child in supervisor.children if not child.is_ready()]
        return f"not ready: {', '.join(waiting)}" if waiting else None

    def disk() -> str | None:
        percent = wiring.spool.usage_percent()
        limit = settings.receive.high_water_percent
        return f"{percent:.0f} % used, the limit is {limit} %" if percent >= limit else None

    def ledger() -> str | None:
        operator.queue_depths()
        return None

    def draining() -> str | None:
        return "the node is stopping" if stop.is_set() else None

    def live() -> str | None:
        silent = time.monotonic() - max(supervisor.turned_at, begun)  # it prepared before that
        return f"the supervisor is silent for {silent:.0f} s" if _silent(silent, stop) else None

    return HealthServer(
        port=settings.node.metrics_port,
        bind=settings.node.bind,
        checks={"processes": processes, "disk": disk, "ledger": ledger, "draining": draining},
        live=live,
        metrics=lambda: metrics.exposition(lambda: _reading(folders, operator, outbox)),
    )


def _silent(seconds: float, stop: threading.Event) -> bool:
    return seconds > _SILENT_LOOP_SECONDS and not stop.is_set()


def _reading(
    folders: Folders, operator: OperatorLedger, outbox: SqlOutbox | None
) -> metrics.Reading:
    usage = shutil.disk_usage(folders.root)
    return metrics.Reading(
        jobs=operator.queue_depths(),
        oldest_job_seconds=operator.oldest_job_seconds(),
        oldest_parked_job_seconds=operator.oldest_parked_job_seconds(),
        audit_waiting=len(waiting(folders.audit)),
        disk_used_bytes=usage.used,
        disk_size_bytes=usage.total,
        backlog=outbox.backlog() if outbox else None,
    )
