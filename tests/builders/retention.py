"""A ledger, a spool and a quarantine with ended exams, and what archives and purges them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from dicom_node.adapters.ledger import OperatorLedger, SqlLedger, SqlObjectRecords
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.adapters.quarantine import DiskQuarantine
from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.exam import Exam
from dicom_node.domain.job import Stage
from dicom_node.domain.retention import ArchiveRule, Retention, RetentionRules
from dicom_node.ports import ObjectStore
from dicom_node.stages.archive import Archive
from dicom_node.stages.purge import Purge
from tests.builders.exams import claim_one, complete, instance
from tests.builders.radiographs import radiograph
from tests.fakes.clock import ManualClock

DAY = 86400.0
WAY = (Stage.SCREEN, Stage.INFER, Stage.REPORT, Stage.DELIVER)


@dataclass
class Told:
    """The port ``RetentionWitness``, which remembers."""

    purged: list[tuple[int, str]] = field(default_factory=list)
    exported: list[tuple[int, str]] = field(default_factory=list)

    def purging(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """The file is still there."""
        assert image is None or image.is_file()
        self.purged.append((exam.exam_id, "reports" if reports else "image"))

    def archived(self, exam: Exam, image: Path | None, reports: tuple[ReportObject, ...]) -> None:
        """Either of both."""
        self.exported.append((exam.exam_id, "reports" if reports else "image"))


class Keeper:
    """All of it below one folder, at a time that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        migrate(folder / "ledger.sqlite")
        self.ledger = SqlLedger(folder / "ledger.sqlite", self.clock)
        self.records = SqlObjectRecords(folder / "ledger.sqlite", self.clock)
        self.operator = OperatorLedger(folder / "ledger.sqlite", self.clock)
        self.spool = DiskSpool(folder / "spool")
        self.quarantine = DiskQuarantine(folder / "spool" / "quarantine")
        self.told = Told()
        self.closing = ExitStack()
        for part in (self.ledger, self.records, self.operator):
            self.closing.callback(part.close)

    def arrive(self, number: int, institution: str = "hospital-1") -> Path:
        """An image in spool and ledger; where it lies."""
        partial = self.spool.arriving() / "image.dcm"
        radiograph(number).save_as(partial, enforce_file_format=True)
        kept = self.spool.keep(partial)
        partial.parent.rmdir()
        path = self.spool.path(kept.content_sha256)
        self.touch(path)
        self.ledger.record_instance(
            replace(
                instance(number),
                content_sha256=kept.content_sha256,
                size_bytes=kept.size_bytes,
                institution_id=institution,
                received_at=self.clock.now(),
            )
        )
        return path

    def touch(self, path: Path) -> None:
        """As if it had arrived now."""
        os.utime(path, (self.clock.now().timestamp(),) * 2)

    def end(self) -> None:
        """The exam that waits goes through all stages."""
        for stage in WAY:
            complete(self.ledger, claim_one(self.ledger, stage))

    def ended(self, number: int, institution: str = "hospital-1") -> Path:
        """An exam that has ended; where its image lies."""
        path = self.arrive(number, institution)
        self.end()
        return path

    def purge(
        self,
        *,
        images: int = 7,
        reports: int = 90,
        institutions: Mapping[str, Retention] | None = None,
        archived: ArchiveRule | None = None,
    ) -> Purge:
        """The stage, with these days."""
        return Purge(
            records=self.records,
            spool=self.spool,
            quarantine=self.quarantine,
            clock=self.clock,
            witness=self.told,
            rules=RetentionRules(
                default=Retention(images_days=images, reports_days=reports),
                institutions=institutions or {},
                archived=archived,
            ),
            quarantine_days=30,
        )

    def archive(self, store: ObjectStore, rule: ArchiveRule) -> Archive:
        """The stage, to a store."""
        return Archive(
            records=self.records,
            spool=self.spool,
            store=store,
            witness=self.told,
            rule=rule,
            node="sp-1",
        )

    def events(self, exam_id: int) -> list[str]:
        """The journal's lines."""
        return [entry.event for entry in self.operator.exam_details(exam_id).journal]


@contextmanager
def keeper(folder: Path) -> Iterator[Keeper]:
    """A keeper whose databases are closed in the end."""
    opened = Keeper(folder)
    with opened.closing:
        yield opened
