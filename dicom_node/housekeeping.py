"""Archiving and purging: from Settings to the stages, and when a running node does them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_node import metrics
from dicom_node.adapters.audit.retention import RetentionAudit
from dicom_node.adapters.ledger import SqlObjectRecords
from dicom_node.adapters.object_store import S3ObjectStore
from dicom_node.domain.audit import Operator
from dicom_node.domain.errors import NodeError
from dicom_node.domain.retention import FOR_EVER, ArchiveRule, Retention, RetentionRules
from dicom_node.logs import log
from dicom_node.schedule import Task
from dicom_node.settings import InstitutionSettings, Settings
from dicom_node.stages.archive import Archive
from dicom_node.stages.purge import Purge
from dicom_node.wiring import Wiring

_ARCHIVE_SECONDS = 60
_PURGE_SECONDS = 3600


def housekeeping_tasks(wiring: Wiring, stop: threading.Event) -> tuple[Task, ...]:
    """What the delivery process does in the background; it ends soon after ``stop`` is set."""
    with_archive = wiring.settings.archive.bucket is not None
    purge_task = Task(
        name="purge", every_seconds=_PURGE_SECONDS, run=lambda: _purge(wiring, stop.is_set)
    )
    if not with_archive:
        return (purge_task,)
    link = _ArchiveLink(wiring, stop.is_set)
    return (purge_task, Task(name="archive", every_seconds=_ARCHIVE_SECONDS, run=link.run))


@contextmanager
def opened_purge(wiring: Wiring, operator: Operator | None = None) -> Iterator[Purge]:
    """Purges by the configuration. ``operator``: who runs the command."""
    records = SqlObjectRecords(wiring.folders.ledger, wiring.clock)
    try:
        yield Purge(
            records=records,
            spool=wiring.spool,
            quarantine=wiring.quarantine,
            clock=wiring.clock,
            witness=_witness(wiring, operator),
            rules=rules_of(wiring.settings),
            quarantine_days=wiring.settings.retention.quarantine_days,
        )
    finally:
        records.close()


@contextmanager
def opened_archive(wiring: Wiring, operator: Operator | None = None) -> Iterator[Archive]:
    """The configured archive. Raises ``LookupError`` when there is none."""
    store = _store(wiring.settings)
    rule = rules_of(wiring.settings).archived
    if store is None or rule is None:
        raise LookupError("archive.bucket")
    records = SqlObjectRecords(wiring.folders.ledger, wiring.clock)
    try:
        yield Archive(
            records=records,
            spool=wiring.spool,
            store=store,
            witness=_witness(wiring, operator),
            rule=rule,
            node=wiring.settings.node.name,
        )
    finally:
        records.close()
        store.close()


def rules_of(settings: Settings) -> RetentionRules:
    """Who keeps what for how long. The images of an institution to which the node commits stay."""
    default = Retention(
        images_days=settings.retention.images_days, reports_days=settings.retention.reports_days
    )
    archive = settings.archive
    rule = None if archive.bucket is None else ArchiveRule(images_of=frozenset(archive.images))
    return RetentionRules(
        default=default,
        institutions={item.id: _own(item, default) for item in settings.institutions},
        archived=rule,
    )


def _own(institution: InstitutionSettings, default: Retention) -> Retention:
    images, reports = institution.images_days, institution.reports_days
    kept = default.images_days if images is None else images
    return Retention(
        images_days=FOR_EVER if institution.storage_commitment else kept,
        reports_days=default.reports_days if reports is None else reports,
    )


def _store(settings: Settings) -> S3ObjectStore | None:
    archive = settings.archive
    if archive.bucket is None:
        return None
    return S3ObjectStore(
        bucket=archive.bucket,
        endpoint_url=archive.endpoint_url,
        region=archive.region,
        prefix=archive.prefix,
        credentials_file=archive.credentials_file,
        ca=archive.ca,
    )


def _witness(wiring: Wiring, operator: Operator | None) -> RetentionAudit:
    store = _store(wiring.settings)
    return RetentionAudit(
        wiring.trail,
        application=wiring.application,
        clock=wiring.clock,
        operator=operator,
        archive=store.uri if store else "",
    )


def _purge(wiring: Wiring, stopping: Callable[[], bool]) -> None:
    try:
        with opened_purge(wiring) as purge:
            done = purge(stopping=stopping)
    except NodeError as error:
        log("purge_failed", fault=error.fault, error=error)
    else:
        metrics.purged(images=done.images, reports=done.reports)


class _ArchiveLink:
    """The way to the archive; its absence is logged once, and costs nothing else."""

    def __init__(self, wiring: Wiring, stopping: Callable[[], bool]) -> None:
        self._wiring = wiring
        self._stopping = stopping
        self._silent = False
        metrics.archive_silent(silent=False)

    def run(self) -> None:
        """Archive what has ended since the last time."""
        try:
            with opened_archive(self._wiring) as archive:
                done = archive(stopping=self._stopping)
        except NodeError as error:
            if not self._silent:
                log("archive_silent", fault=error.fault, error=error)
            self._silent = True
        else:
            metrics.archived(images=done.images, reports=done.reports)
            if self._silent:
                log("archive_returned")
            self._silent = False
        metrics.archive_silent(silent=self._silent)
