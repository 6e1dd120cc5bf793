"""Purge: remove images, reports and refused files whose time is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import Exam
from dicom_node.domain.retention import (
    FOR_EVER,
    RetentionRules,
    image_cutoffs,
    report_cutoffs,
)
from dicom_node.logs import log
from dicom_node.ports import (
    AgedQuarantine,
    Clock,
    ObjectRecords,
    PurgeableSpool,
    RetentionWitness,
)

_AT_ONCE = 200
"""Exams that are in memory."""
_ARRIVED_AGAIN = timedelta(hours=1)
"""An object that came again so recently stays until the next time."""


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What went, or would go: images of exams and their bytes, exams whose reports went, files of
    the quarantine."""

    images: int
    image_bytes: int
    reports: int
    quarantined: int


class Purge:
    """Removes what an institution's days allow, an exam at a time; the exam's row, its outcome and
    its journal stay."""

    def __init__(
        self,
        *,
        records: ObjectRecords,
        spool: PurgeableSpool,
        quarantine: AgedQuarantine,
        clock: Clock,
        witness: RetentionWitness,
        rules: RetentionRules,
        quarantine_days: int,
    ) -> None:
        self._records = records
        self._spool = spool
        self._quarantine = quarantine
        self._clock = clock
        self._witness = witness
        self._rules = rules
        self._quarantine_days = quarantine_days

    def __call__(
        self, *, dry_run: bool = False, stopping: Callable[[], bool] = lambda: False
    ) -> Purged:
        """Remove what may go; with ``dry_run`` only count it. Raises ``Transient``
        (STORAGE_UNAVAILABLE)."""
        images = image_bytes = reports = 0
        for exam in self._images():
            if stopping():
                break
            if dry_run or self._purge_image(exam):
                images, image_bytes = images + 1, image_bytes + exam.instance.size_bytes
        for exam in self._reports():
            if stopping():
                break
            reports += dry_run or self._purge_reports(exam)
        done = Purged(
            images=images,
            image_bytes=image_bytes,
            reports=reports,
            quarantined=self._refused(dry_run=dry_run),
        )
        if not dry_run and done != Purged(images=0, image_bytes=0, reports=0, quarantined=0):
            log("purged", count=images, reports=reports, quarantined=done.quarantined)
        return done

    def _images(self) -> Iterator[Exam]:
        promised = self._records.promised_institutions()
        cutoffs = image_cutoffs(self._rules, self._clock.now(), promised)
        archived = self._rules.archived.images_of if self._rules.archived else frozenset()
        return _all(
            lambda after: self._records.images_to_purge(
                cutoffs, archived=archived, after=after, limit=_AT_ONCE
            )
        )

    def _reports(self) -> Iterator[Exam]:
        cutoffs = report_cutoffs(self._rules, self._clock.now())
        archived = self._rules.archived is not None
        return _all(
            lambda after: self._records.reports_to_purge(
                cutoffs, archived=archived, after=after, limit=_AT_ONCE
            )
        )

    def _purge_image(self, exam: Exam) -> bool:
        content_sha256 = exam.instance.content_sha256
        try:
            self._witness.purging(exam, self._spool.path(content_sha256), ())
        except NodeError:
            self._witness.purging(exam, None, ())  # it is missing: nobody can say whose it was
        since = self._clock.now() - _ARRIVED_AGAIN
        return self._records.purge_image(
            exam.exam_id, lambda: self._spool.remove(content_sha256, since=since)
        )

    def _purge_reports(self, exam: Exam) -> bool:
        here = tuple(
            item.report for item in self._records.reports_of(exam.exam_id) if item.report.encoded
        )
        self._witness.purging(exam, None, here)
        return self._records.purge_reports(exam.exam_id)

    def _refused(self, *, dry_run: bool) -> int:
        if self._quarantine_days == FOR_EVER:
            return 0
        before = self._clock.now() - timedelta(days=self._quarantine_days)
        if dry_run:
            return self._quarantine.arrived_before(before)
        return self._quarantine.remove_before(before)


def _all(page: Callable[[int], tuple[Exam, ...]]) -> Iterator[Exam]:
    """Every exam of a list that is read in pages."""
    after = 0
    while exams := page(after):
        yield from exams
        after = exams[-1].exam_id
