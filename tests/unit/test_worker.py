"""The stages on fakes, driven by the worker: every way a job can end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest

from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.assessment import Assessment, Note, Prediction
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE, SECONDARY_CAPTURE, Reason
from dicom_node.domain.errors import Fault, LeaseLost, Permanent, Transient
from dicom_node.domain.exam import Header, Instance, Laterality, Outcome, Sex
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.stages.deliver import Deliver
from dicom_node.stages.infer import Infer
from dicom_node.stages.report import Report, Route
from dicom_node.stages.screen import Screen
from dicom_node.worker import Batch, Worker
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger
from tests.fakes.stage_ports import (
    PREDICTION,
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
    batch_max: int = 1
    reports_not_assessed: bool = True
    institution_is_known: bool = True
    kinds: tuple[ReportKind, ...] = tuple(ReportKind)
    finished: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = InMemoryLedger(self.clock)
        spool = NamedSpool()
        route = Route(
            language="en",
            destinations=("pacs",),
            report_not_assessed=self.reports_not_assessed,
            kinds=frozenset(self.kinds),
            keep_character_set=False,
        )
        self.work = self._worker(
            handlers={
                Stage.SCREEN: Screen(
                    spool=spool,
                    ledger=self.ledger,
                    read_header=lambda path: self.header(path),  # noqa: PLW0108 set by a test later
                    reports_not_assessed=lambda _: route.report_not_assessed,
                    pseudonym=lambda _, header: header.patient_id or None,
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
            batch=Batch(max=self.batch_max),
        )
        self.delivery = self._worker(
            handlers={
                Stage.DELIVER: Deliver(
                    ledger=self.ledger,
                    sender=self.sender,
                    clock=self.clock,
                    kinds=lambda _: self.kinds,
                )
            },
            destination="pacs",
        )

    def _worker(self, **parts: object) -> Worker:
        return Worker(
            ledger=self.ledger,
            clock=self.clock,
            owner="test",
            bell=SilentBell(),
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


def test_a_hand_radiograph_goes_through_every_stage_to_the_destination() -> None:
    node = Node()
    exam_id = node.receive("hand")
    node.run()
    assert node.finished == [Stage.SCREEN, Stage.INFER, Stage.REPORT, Stage.DELIVER]
    assert node.ledger.exams[exam_id].outcome is Outcome.ASSESSED
    assert node.sender.sent == [("pacs", "2.25.1.0"), ("pacs", "2.25.1.1")]
    finding = node.reporter.requests[0].finding
    assert isinstance(finding, Assessment)
    assert finding.prediction == PREDICTION
    assert finding.z_score == pytest.approx(-1.68, abs=0.01)  # the example of report.md 3.2


def test_the_report_is_about_the_hand_the_sex_and_the_age_of_the_header() -> None:
    boy = replace(HAND, sex="M", laterality=Laterality.RIGHT, birth_date=date(2017, 11, 1))
    node = Node(header=lambda _: boy)
    node.receive("hand")
    node.run()
    finding = node.reporter.requests[0].finding
    assert isinstance(finding, Assessment)
    assert (finding.laterality, finding.sex) == (Laterality.RIGHT, Sex.MALE)
    assert finding.chronological_age_months == 100.0
    assert finding.difference_months == 26.0
    table = load_reference_table("greulich-pyle-v-vi")
    assert finding.population_sd_months == table.sd_at(Sex.MALE, 100.0)
    assert finding.population_sd_months != table.sd_at(Sex.FEMALE, 100.0)


def test_the_report_carries_the_time_of_its_job_so_that_a_repeat_builds_the_same() -> None:
    node = Node()
    node.receive("hand")
    node.work.step()
    node.work.step()
    queued = [job for job in node.jobs(JobState.QUEUED) if job.stage is Stage.REPORT]
    node.clock.advance(3600)
    node.run()
    assert node.reporter.requests[0].reported_at == queued[0].created_at


def test_an_object_that_is_not_ours_ends_as_ignored_without_a_report() -> None:
    node = Node(header=lambda _: replace(HAND, sop_class_uid=SECONDARY_CAPTURE))
    exam = node.receive("capture")
    node.run()
    assert node.ledger.exams[exam].outcome is Outcome.IGNORED
    assert node.ledger.exams[exam].reason == Reason.SECONDARY_CAPTURE
    assert node.reporter.requests == []


@pytest.mark.parametrize("wanted", [True, False])
def test_an_exam_without_sex_is_reported_as_not_assessed_when_wanted(wanted: bool) -> None:
    node = Node(header=lambda _: replace(HAND, sex=""), reports_not_assessed=wanted)
    exam = node.receive("hand")
    node.run()
    assert node.ledger.exams[exam].outcome is Outcome.NOT_ASSESSED
    assert [request.finding for request in node.reporter.requests] == (
        [Reason.SEX_MISSING] if wanted else []
    )


def test_pixels_that_cannot_be_assessed_are_reported_with_the_reason() -> None:
    node = Node(predictor=ScriptedPredictor({"blank": Reason.IMAGE_BLANK}))
    exam = node.receive("blank")
    node.run()
    assert node.ledger.exams[exam].reason == Reason.IMAGE_BLANK
    assert node.reporter.requests[0].finding is Reason.IMAGE_BLANK


def test_of_two_hands_the_left_one_is_reported() -> None:
    left = replace(PREDICTION, findings=(Note.TWO_HANDS_LEFT_ASSESSED,))
    node = Node(
        header=lambda _: replace(HAND, laterality=Laterality.BOTH),
        predictor=ScriptedPredictor({"hands": left}),
    )
    node.receive("hands")
    node.run()
    finding = node.reporter.requests[0].finding
    assert isinstance(finding, Assessment)
    assert finding.laterality is Laterality.LEFT
    assert finding.notes == (Note.TWO_HANDS_LEFT_ASSESSED,)


def test_an_indeterminate_result_ends_without_a_number() -> None:
    node = Node(predictor=ScriptedPredictor({"vague": Reason.INDETERMINATE}))
    exam_id = node.receive("vague")
    node.run()
    assert node.ended(exam_id) == (Outcome.NOT_ASSESSED, Reason.INDETERMINATE, None)
    assert node.reporter.requests[0].finding is Reason.INDETERMINATE


def test_a_batch_runs_together_and_each_exam_ends_with_its_own_answer() -> None:
    answers: dict[str, Prediction | Reason | Exception] = {
        "young": replace(PREDICTION, bone_age_months=60.0),
        "bad": Permanent(Fault.PREDICTION_INVALID, "not a number"),
        "busy": Transient(Fault.PREDICTOR_UNAVAILABLE, "out of memory"),
        "blank": Reason.IMAGE_BLANK,
        "old": replace(PREDICTION, bone_age_months=190.0),
    }
    node = Node(predictor=ScriptedPredictor(answers), batch_max=8)
    ids = {name: node.receive(name, uid=f"1.2.{index}") for index, name in enumerate(answers)}
    for _ in answers:  # screen everything before the first inference
        node.work._run_one(node.work._claim([Stage.SCREEN], limit=1)[0])
    node.run()
    assert node.predictor.batches[0] == len(answers)
    assert {name: node.ended(exam_id) for name, exam_id in ids.items()} == {
        "young": (Outcome.ASSESSED, None, 60.0),
        "bad": (Outcome.PENDING, None, None),
        "busy": (Outcome.PENDING, None, None),
        "blank": (Outcome.NOT_ASSESSED, Reason.IMAGE_BLANK, None),
        "old": (Outcome.ASSESSED, None, 190.0),
    }
    [parked], [queued] = node.jobs(JobState.PARKED), node.jobs(JobState.QUEUED)
    assert (parked.exam_id, parked.fault) == (ids["bad"], Fault.PREDICTION_INVALID)
    assert (queued.exam_id, queued.fault) == (ids["busy"], Fault.PREDICTOR_UNAVAILABLE)


def test_a_missing_object_is_parked_and_does_not_harm_its_batch() -> None:
    node = Node(batch_max=8)
    node.receive("hand", uid="1.2.1")
    missing = node.receive("hand2", uid="1.2.2")
    for _ in range(2):
        node.work._run_one(node.work._claim([Stage.SCREEN], limit=1)[0])
    exam = node.ledger.exams[missing]
    node.ledger.exams[missing] = replace(
        exam, instance=replace(exam.instance, content_sha256="missing")
    )
    node.run()
    assert [job.fault for job in node.jobs(JobState.PARKED)] == [Fault.CORRUPT_SPOOL]
    assert node.ledger.exams[1].outcome is Outcome.ASSESSED


def test_an_unavailable_destination_is_tried_again_and_only_what_is_missing_is_sent() -> None:
    down = Transient(Fault.DESTINATION_UNAVAILABLE, "connection refused")
    node = Node(sender=ScriptedSender([0x0000, down]))
    node.receive("hand")
    node.run()
    assert [job.fault for job in node.jobs(JobState.QUEUED)] == [Fault.DESTINATION_UNAVAILABLE]
    node.clock.advance(60)
    node.run()
    assert [uid for _, uid in node.sender.sent] == ["2.25.1.0", "2.25.1.1", "2.25.1.1"]
    assert node.jobs(JobState.QUEUED) == []


def test_an_object_that_changed_on_the_disk_is_parked_before_anybody_reads_it() -> None:
    node = Node()
    node.receive("rotten")
    node.run()
    assert [job.fault for job in node.jobs(JobState.PARKED)] == [Fault.CORRUPT_SPOOL]


def test_a_report_of_an_unknown_institution_goes_nowhere() -> None:
    node = Node(institution_is_known=False)
    node.receive("hand")
    node.run()
    [parked] = node.jobs(JobState.PARKED)
    assert (parked.stage, parked.fault) == (Stage.REPORT, Fault.INSTITUTION_UNKNOWN)
    assert node.sender.sent == []


def test_a_refused_object_does_not_hold_up_the_others() -> None:
    node = Node(sender=ScriptedSender([0xC000]))
    node.receive("hand")
    node.run()
    assert [uid for _, uid in node.sender.sent] == ["2.25.1.0", "2.25.1.1"]
    assert [job.fault for job in node.jobs(JobState.QUEUED)] == [Fault.DESTINATION_REFUSED]


def test_a_destination_gets_only_the_kinds_of_objects_it_wants() -> None:
    node = Node(kinds=(ReportKind.NARRATIVE,))
    node.receive("hand")
    node.run()
    assert node.sender.sent == [("pacs", "2.25.1.1")]
    assert len(node.jobs(JobState.DONE)) == 4


def test_a_refusing_destination_is_tried_three_times_and_then_parked() -> None:
    node = Node(sender=ScriptedSender([0xC000, 0x0000, 0xA900, 0x0124]))
    node.receive("hand")
    for _ in range(3):
        node.run()
        node.clock.advance(3600)
    assert len(node.sender.sent) == 4
    [parked] = node.jobs(JobState.PARKED)
    assert parked.fault is Fault.DESTINATION_REFUSED
    assert "0124" in parked.detail


def test_an_object_that_no_sop_class_fits_stays_away_when_another_one_arrives() -> None:
    node = Node(sender=ScriptedSender([0x0122, 0x0000]))
    node.receive("hand")
    node.run()
    assert node.finished[-1] is Stage.DELIVER
    assert len(node.sender.sent) == 2
    assert node.jobs(JobState.PARKED) == []


def test_a_destination_that_takes_no_object_at_all_needs_a_person() -> None:
    node = Node(sender=ScriptedSender([0x0122] * 20))
    node.receive("hand")
    for _ in range(3):
        node.run()
        node.clock.advance(3600)
    [parked] = node.jobs(JobState.PARKED)
    assert parked.fault is Fault.DESTINATION_REFUSED
    assert "none of the SOP classes" in parked.detail


def test_an_object_that_arrived_before_is_enough() -> None:
    node = Node(sender=ScriptedSender([0x0000, Transient(Fault.DESTINATION_UNAVAILABLE, "gone")]))
    node.receive("hand")
    node.run()
    node.sender.script = [0x0122]
    node.clock.advance(3600)
    node.run()
    assert node.finished[-1] is Stage.DELIVER


def test_a_corrected_header_revises_the_report_of_the_same_instance() -> None:
    node = Node()
    node.receive("hand")
    node.run()
    node.receive("hand corrected")
    [parked] = node.jobs(JobState.PARKED)
    node.ledger.jobs[parked.job_id] = replace(parked, state=JobState.QUEUED, fault=None)
    node.run()
    first, second = node.reporter.requests
    assert first.previous is None
    assert second.previous is not None
    assert second.previous.revision == 1
    assert [made.sop_instance_uid for made in second.previous.objects] == ["2.25.1.0", "2.25.1.1"]


def test_earlier_exams_of_the_patient_are_handed_to_the_report() -> None:
    earlier = replace(HAND, patient_id="7", study_date=date(2021, 1, 1))
    later = replace(HAND, patient_id="7", study_date=date(2022, 1, 1))
    headers = {"early": earlier, "late": later, "other": replace(later, patient_id="8")}
    node = Node(header=lambda path: headers[path.name])
    for number, name in enumerate(headers):
        node.receive(name, uid=f"1.2.{number}")
        node.run()
    findings = [request.finding for request in node.reporter.requests]
    assert all(isinstance(finding, Assessment) for finding in findings)
    priors = [finding.priors for finding in findings if isinstance(finding, Assessment)]
    assert [len(found) for found in priors] == [0, 1, 0]
    assert priors[1][0].study_date == date(2021, 1, 1)


def test_an_error_that_nobody_expected_parks_the_job_without_its_text() -> None:
    def explode(_: Path) -> Header:
        raise ZeroDivisionError("SECRET^NAME")

    node = Node(header=explode)
    node.receive("hand")
    node.run()
    [parked] = node.jobs(JobState.PARKED)
    assert parked.fault is Fault.UNEXPECTED
    assert "SECRET" not in parked.detail


def test_a_result_that_comes_after_the_lease_is_dropped() -> None:
    node = Node()
    exam_id = node.receive("hand")
    [late] = node.work._claim([Stage.SCREEN], limit=1)
    node.clock.advance(1000)
    [again] = node.work._claim([Stage.SCREEN], limit=1)
    assert again.attempt == late.attempt + 1
    node.work._run_one(late)
    assert node.ledger.jobs[late.job_id].state is JobState.LEASED
    node.work._run_one(again)
    assert node.ledger.jobs[late.job_id].state is JobState.DONE
    assert node.ledger.exams[exam_id].outcome is Outcome.PENDING
    with pytest.raises(LeaseLost):
        node.ledger.complete_deliver(late)
