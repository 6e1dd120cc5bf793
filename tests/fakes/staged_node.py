"""All stages on fakes, driven by the worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.commitment import Proof
from dicom_node.domain.delivery import ReportKind, ReportObject
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE
from dicom_node.domain.exam import Header, Instance, Laterality, Outcome
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.stages.deliver import Deliver
from dicom_node.stages.infer import Infer
from dicom_node.stages.report import Report, Route
from dicom_node.stages.screen import Pseudonymise, Screen
from dicom_node.worker import Batch, Bell, Worker
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger
from tests.fakes.stage_ports import (
    NamedSpool,
    RecordingReporter,
    ScriptedPredictor,
    ScriptedSender,
    SilentBell,
)

HAND = Header(
    sop_class_uid=CR_IMAGE_STORAGE,
    sop_instance_uid="1.2.3",
    study_instance_uid="1.2",
    modality="CR",
    photometric_interpretation="MONOCHROME2",
    samples_per_pixel=1,
    rows=2000,
    columns=1500,
    body_part_examined="HAND",
    view_position="PA",
    laterality=Laterality.LEFT,
    sex="F",
    birth_date=date(2013, 9, 1),
    study_date=date(2026, 3, 1),
)


@dataclass
class Node:
    """All stages on fakes, with one worker for work and one for delivery."""

    clock: ManualClock = field(default_factory=ManualClock)
    predictor: ScriptedPredictor = field(default_factory=ScriptedPredictor)
    reporter: RecordingReporter = field(default_factory=RecordingReporter)
    sender: ScriptedSender = field(default_factory=ScriptedSender)
    header: Callable[[Path], Header] = lambda _: HAND
    pseudonym: Pseudonymise = lambda _, header: header.patient_id or None
    batch: Batch = field(default_factory=Batch)
    bell: Bell = field(default_factory=SilentBell)
    reports_not_assessed: bool = True
    institution_is_known: bool = True
    kinds: tuple[ReportKind, ...] = tuple(ReportKind)
    """What the destination takes."""
    wishes: frozenset[ReportKind] = frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE})
    """What the institution wants."""
    finished: list[Stage] = field(default_factory=list)
    transfers: list[tuple[str, int, bool]] = field(default_factory=list)
    """What the audit trail was told: destination, number of objects, whether they were refused."""

    def __post_init__(self) -> None:
        self.ledger = InMemoryLedger(self.clock)
        spool = NamedSpool()
        route = Route(
            language="en",
            destinations=("pacs",),
            report_not_assessed=self.reports_not_assessed,
            kinds=self.wishes,
            keep_character_set=False,
        )
        self.work = self._worker(
            handlers={
                Stage.SCREEN: Screen(
                    spool=spool,
                    ledger=self.ledger,
                    read_header=lambda path: self.header(path),  # noqa: PLW0108 set by a test later
                    reports_not_assessed=lambda _: route.report_not_assessed,
                    pseudonym=self.pseudonym,
                ),
                Stage.REPORT: Report(
                    spool=spool,
                    ledger=self.ledger,
                    reporter=self.reporter,
                    reference=load_reference_table("greulich-pyle-v-vi"),
                    route=lambda _: route if self.institution_is_known else None,
                ),
            },
            infer=Infer(
                spool=spool,
                ledger=self.ledger,
                predictor=self.predictor,
                reports_not_assessed=lambda _: route.report_not_assessed,
            ),
            batch=self.batch,
        )
        self.delivery = self._worker(
            handlers={
                Stage.DELIVER: Deliver(
                    ledger=self.ledger,
                    sender=self.sender,
                    clock=self.clock,
                    kinds=lambda _: self.kinds,
                    proof=lambda _: Proof.STATUS,
                    transferred=self._note_transfer,
                )
            },
            destination="pacs",
        )

    def _note_transfer(
        self, destination: str, report: ReportObject, sop_classes: Sequence[str], *, refused: bool
    ) -> None:
        del report
        self.transfers.append((destination, len(sop_classes), refused))

    def _worker(self, **parts: object) -> Worker:
        return Worker(
            ledger=self.ledger,
            clock=self.clock,
            owner="test",
            bell=self.bell,
            done=lambda job: self.finished.append(job.stage),
            **parts,  # type: ignore[arg-type]  # one place for two kinds of worker
        )

    def receive(self, content: str, uid: str = "1.2.3") -> int:
        exam_id, _ = self.ledger.record_instance(
            Instance(
                sop_class_uid=CR_IMAGE_STORAGE,
                sop_instance_uid=uid,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                content_sha256=content,
                size_bytes=1,
                calling_ae_title="CR1",
                peer_address="127.0.0.1",
                institution_id="local",
                received_at=self.clock.now(),
            )
        )
        return exam_id

    def run(self) -> None:
        while self.work.step() or self.delivery.step():
            pass

    def ended(self, exam_id: int) -> tuple[Outcome, str | None, float | None]:
        """An exam's outcome, reason and predicted bone age in months."""
        exam, found = self.ledger.exams[exam_id], self.ledger.prediction(exam_id)
        return exam.outcome, exam.reason, found.bone_age_months if found else None

    def jobs(self, state: JobState) -> list[Job]:
        return [job for job in self.ledger.jobs.values() if job.state is state]
