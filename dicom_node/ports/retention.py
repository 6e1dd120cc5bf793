"""What archiving and purging need."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.exam import Exam, Outcome
from dicom_node.domain.retention import Cutoffs


@dataclass(frozen=True, kw_only=True)
class ReportRecord:
    """A report object with its exam. ``archived_sha256``: of its bytes in the archive, None when it
    is not there."""

    exam: Exam
    report: ReportObject
    archived_sha256: str | None = None


class ObjectRecords(Protocol):
    """What the ledger says of objects that are kept, archived and purged.

    Nothing is listed of an exam that has an open job or no outcome yet. Lists are in the order of
    ``exam_id``; ``after``: the last one seen, 0 to begin.
    """

    def promised_institutions(self) -> frozenset[str]:
        """Institutions whose requests for Storage Commitment the node has answered."""

    def images_to_purge(
        self, cutoffs: Cutoffs, *, archived: Collection[Outcome], after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams whose image is still here and may go; ``archived``: outcomes whose image must be in
        the archive."""

    def reports_to_purge(
        self, cutoffs: Cutoffs, *, archived: bool, after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams with reports that are still here and may go; ``archived``: that must be in the
        archive."""

    def purge_image(self, exam_id: int, remove: Callable[[], bool]) -> bool:
        """Note that the image is gone, and have it removed in the same transaction. False, and
        nothing is noted: it is needed again, or ``remove`` returned False."""

    def purge_reports(self, exam_id: int) -> bool:
        """Forget the bytes of all reports of an exam; False when they are needed again."""

    def reports_of(self, exam_id: int) -> tuple[ReportRecord, ...]:
        """All report objects of an exam, of every revision; those that were purged without
        bytes."""

    def images_to_archive(
        self, outcomes: Collection[Outcome], *, after: int, limit: int
    ) -> tuple[Exam, ...]:
        """Exams of these outcomes whose image is not in the archive and still here."""

    def reports_to_archive(self, *, after: int, limit: int) -> tuple[Exam, ...]:
        """Exams with reports that are not in the archive and still here."""

    def image_archived(self, exam_id: int) -> None:
        """The image is in the archive."""

    def report_archived(self, sop_instance_uid: str, sha256: str) -> None:
        """The report object is in the archive; ``sha256`` of its bytes."""

    def archived_since(self, since: datetime) -> tuple[int, ...]:
        """Exams received from then on of which the archive holds anything."""

    def archived_image(self, exam_id: int) -> Exam | None:
        """The exam if its image is in the archive. Raises ``KeyError`` when there is none."""

    def image_restored(self, exam_id: int) -> None:
        """The image is here again."""

    def report_restored(self, exam_id: int, sop_instance_uid: str, encoded: bytes) -> None:
        """The report object is here again."""


class PurgeableSpool(Protocol):
    """The spool, as far as objects leave it and come back."""

    def path(self, content_sha256: str) -> Path:
        """Path of a kept DICOM file. Raises ``Permanent`` (CORRUPT_SPOOL) when it is missing."""

    def remove(self, content_sha256: str, *, since: datetime) -> bool:
        """Remove an object that has not arrived again since then; False: it has. One that is
        missing already counts as removed."""

    def put_back(self, source: Path, content_sha256: str) -> None:
        """Keep a file that was removed. Raises ``Permanent`` (ARCHIVE_DAMAGED) when it is not the
        same content."""

    def arriving(self) -> Path:
        """A new, empty folder on the spool's file system for a file to put back."""


class AgedQuarantine(Protocol):
    """The quarantine, as far as its files go by age."""

    def arrived_before(self, at: datetime) -> int:
        """How many files arrived before then."""

    def remove_before(self, at: datetime) -> int:
        """Remove them; how many they were."""


class ObjectStore(Protocol):
    """A store of objects under keys. All methods raise ``Transient`` (ARCHIVE_UNAVAILABLE) when it
    does not answer and ``Permanent`` (ARCHIVE_REFUSED) when it does not let the node."""

    def put(self, key: str, content: bytes) -> None:
        """Store an object, in place of an equal one; it is there when this returns."""

    def get(self, key: str) -> bytes:
        """An object. Raises ``Permanent`` (ARCHIVE_DAMAGED) when there is none or when its checksum
        is wrong."""


class RetentionWitness(Protocol):
    """What the audit trail is told."""

    def purging(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """The image or the reports of an exam are about to go; ``image``: its file."""

    def archived(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """The image or reports of an exam are in the archive."""
