"""Archive: report objects and chosen images of ended exams to a store outside, and back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from dicom_node.domain.errors import Fault, NodeError, Permanent
from dicom_node.domain.exam import Exam
from dicom_node.domain.retention import ArchiveRule
from dicom_node.logs import log
from dicom_node.ports import (
    ObjectRecords,
    ObjectStore,
    PurgeableSpool,
    ReportRecord,
    RetentionWitness,
)

_AT_ONCE = 200
"""Exams that are in memory."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How many objects went to the archive, came back from it, or were compared with it."""

    images: int = 0
    reports: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(images=self.images + other.images, reports=self.reports + other.reports)


class Archive:
    """Objects lie under ``<node>/<year>/<month>/<day>/``, the day of arrival: images by the
    SHA-256 of their data set, reports by their SOP Instance UID."""

    def __init__(
        self,
        *,
        records: ObjectRecords,
        spool: PurgeableSpool,
        store: ObjectStore,
        witness: RetentionWitness,
        rule: ArchiveRule,
        node: str,
    ) -> None:
        self._records = records
        self._spool = spool
        self._store = store
        self._witness = witness
        self._rule = rule
        self._node = node

    def __call__(self, *, stopping: Callable[[], bool] = lambda: False) -> Moved:
        """Archive what is not there yet. Raises what the store raises; an image that is missing
        here holds up no other."""
        done = Moved()
        try:
            for exam in self._waiting():
                if stopping():
                    break
                done += self._archive(exam)
        finally:
            if done != Moved():
                log("archived", count=done.images, reports=done.reports)
        return done

    def exams_since(self, since: datetime) -> tuple[int, ...]:
        """Exams received from then on of which the archive holds anything."""
        return self._records.archived_since(since)

    def restore(self, exam_id: int) -> Moved:
        """Bring back what is missing here of an exam, and nothing that is not what it was.

        Raises ``KeyError`` for an unknown exam, what the store raises, and ``Permanent``
        (ARCHIVE_DAMAGED).
        """
        images = self._restore_image(exam_id)
        reports = 0
        for item in self._archived_reports(exam_id):
            if not item.report.encoded:
                self._records.report_restored(
                    exam_id, item.report.sop_instance_uid, self._fetched(item)
                )
                reports += 1
        return Moved(images=images, reports=reports)

    def verify(self, exam_id: int) -> Moved:
        """Read everything that the archive has of an exam, and compare it.

        Raises as :meth:`restore`.
        """
        exam = self._records.archived_image(exam_id)
        if exam is not None:
            self._store.get(self._image_key(exam))
        reports = self._archived_reports(exam_id)
        for item in reports:
            self._fetched(item)
        return Moved(images=int(exam is not None), reports=len(reports))

    def _waiting(self) -> Iterator[Exam]:
        after = 0
        while exams := self._page(after):
            yield from exams
            after = exams[-1].exam_id

    def _page(self, after: int) -> list[Exam]:
        """Both lists, up to where the shorter one is known."""
        reports = self._records.reports_to_archive(after=after, limit=_AT_ONCE)
        images = self._records.images_to_archive(self._rule.images_of, after=after, limit=_AT_ONCE)
        ends = [page[-1].exam_id for page in (reports, images) if len(page) == _AT_ONCE]
        both = {exam.exam_id: exam for exam in (*reports, *images)}
        return [both[exam_id] for exam_id in sorted(both) if not ends or exam_id <= min(ends)]

    def _archive(self, exam: Exam) -> Moved:
        reports = [
            item
            for item in self._records.reports_of(exam.exam_id)
            if item.archived_sha256 is None and item.report.encoded
        ]
        for item in reports:
            encoded = item.report.encoded
            self._store.put(self._report_key(item), encoded)
            self._records.report_archived(
                item.report.sop_instance_uid, hashlib.sha256(encoded).hexdigest()
            )
        if reports:
            self._witness.archived(exam, None, tuple(item.report for item in reports))
        return Moved(images=self._archive_image(exam), reports=len(reports))

    def _archive_image(self, exam: Exam) -> int:
        wanted = exam.outcome in self._rule.images_of
        if not wanted or self._records.archived_image(exam.exam_id) is not None:
            return 0
        try:
            path = self._spool.path(exam.instance.content_sha256)
            content = path.read_bytes()
        except (NodeError, OSError) as error:
            log("image_not_archived", exam_id=exam.exam_id, error=error)
            return 0
        self._store.put(self._image_key(exam), content)
        self._records.image_archived(exam.exam_id)
        self._witness.archived(exam, path, ())
        return 1

    def _restore_image(self, exam_id: int) -> int:
        exam = self._records.archived_image(exam_id)
        if exam is None or self._is_here(exam):
            return 0
        folder = self._spool.arriving()
        try:
            arrived = folder / "image.dcm"
            arrived.write_bytes(self._store.get(self._image_key(exam)))
            self._spool.put_back(arrived, exam.instance.content_sha256)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._records.image_restored(exam_id)
        return 1

    def _is_here(self, exam: Exam) -> bool:
        try:
            self._spool.path(exam.instance.content_sha256)
        except Permanent:
            return False
        return True

    def _archived_reports(self, exam_id: int) -> list[ReportRecord]:
        return [item for item in self._records.reports_of(exam_id) if item.archived_sha256]

    def _fetched(self, item: ReportRecord) -> bytes:
        content = self._store.get(self._report_key(item))
        if hashlib.sha256(content).hexdigest() != item.archived_sha256:
            raise Permanent(
                Fault.ARCHIVE_DAMAGED,
                f"the archive's copy of report {item.report.sop_instance_uid} is another object: "
                "look for an older version of it in the archive",
            )
        return content

    def _image_key(self, exam: Exam) -> str:
        return f"{self._day(exam)}/images/{exam.instance.content_sha256}.dcm"

    def _report_key(self, item: ReportRecord) -> str:
        return f"{self._day(item.exam)}/reports/{item.report.sop_instance_uid}.dcm"

    def _day(self, exam: Exam) -> str:
        return f"{self._node}/{exam.instance.received_at:%Y/%m/%d}"
