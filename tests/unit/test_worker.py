"""The stages on fakes, driven by the worker: every way a job can end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node import metrics, worker
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.assessment import Assessment, Note, Prediction
from dicom_node.domain.eligibility import SECONDARY_CAPTURE, Reason
from dicom_node.domain.errors import Fault, LeaseLost, Permanent, Transient
from dicom_node.domain.exam import Header, Laterality, Outcome, Sex
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.ports import PredictionRequest
from dicom_node.worker import Batch
from tests.fakes.stage_ports import (
    PREDICTION,
    ScriptedPredictor,
)
from tests.fakes.staged_node import HAND, Node


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
    together = Batch(max=len(answers), wait_seconds=60.0)
    node = Node(predictor=ScriptedPredictor(answers), batch=together)
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


def test_a_batch_takes_a_job_when_the_one_before_is_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SlowPredictor(ScriptedPredictor):
        """Looks at what is still to be had whenever it has prepared one."""

        def predict(
            self, requests: Iterable[PredictionRequest]
        ) -> list[Prediction | Reason | Exception]:
            def prepared() -> Iterator[PredictionRequest]:
                for request in requests:
                    left.append(len(node.jobs(JobState.QUEUED)))
                    yield request
                    now[0] += 0.06

            return super().predict(prepared())

    left: list[int] = []
    now = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    node = Node(predictor=SlowPredictor(), batch=Batch(max=8, wait_seconds=0.1))
    for number in range(6):
        screened(node, number)
    node.work.step()
    assert node.predictor.batches == [3], "the first waits 0.1 s, and another takes 0.06 s"
    assert left == [5, 4, 3], "an idle worker could have had the others meanwhile"


def test_an_exam_that_comes_while_a_batch_waits_joins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class RingsOnce:
        """Another exam comes during the first wait; nothing more does."""

        def wait(self, seconds: float) -> None:
            now[0] += 0.05 if waited else seconds / 2
            waited.append(seconds)
            if len(waited) == 1:
                screened(node, 1)

    now, waited = [0.0], list[float]()
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    node = Node(batch=Batch(max=8, wait_seconds=0.1), bell=RingsOnce())
    screened(node, 0)
    node.work.step()
    assert node.predictor.batches == [2]
    assert waited == pytest.approx([0.1, 0.05]), "for the rest of its time it waits again"


def test_a_ledger_that_fails_while_a_batch_fills_ends_the_batch_and_loses_no_exam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(batch=Batch(max=8, wait_seconds=60.0))
    claim, claims = node.ledger.claim, list[int]()

    def failing(*arguments: Any, **more: Any) -> list[Job]:
        claims.append(1)
        if len(claims) == 2:
            raise Transient(Fault.STORAGE_UNAVAILABLE, "locked")
        return claim(*arguments, **more)

    ids = [screened(node, number) for number in range(2)]
    monkeypatch.setattr(node.ledger, "claim", failing)
    node.work.step()
    assert node.predictor.batches == [1]
    assert [node.ended(exam_id)[0] for exam_id in ids] == [Outcome.ASSESSED, Outcome.PENDING]


def screened(node: Node, number: int) -> int:
    """An exam that waits for its inference."""
    exam_id = node.receive(f"hand{number}", uid=f"1.2.{number}")
    node.work._run_one(node.work._claim([Stage.SCREEN], limit=1)[0])
    return exam_id


def test_a_missing_object_is_parked_and_does_not_harm_its_batch() -> None:
    node = Node(batch=Batch(max=2, wait_seconds=60.0))
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


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (replace(HAND, sex=""), Reason.SEX_MISSING),
        (replace(HAND, sop_class_uid=SECONDARY_CAPTURE), Reason.SECONDARY_CAPTURE),
        (replace(HAND, modality="CT"), Reason.OTHER_MODALITY),
    ],
)
def test_a_correction_that_takes_the_bone_age_away_is_reported_to_everybody(
    header: Header, reason: Reason
) -> None:
    headers = {"hand": HAND, "hand corrected": header}
    node = Node(header=lambda path: headers[path.name], reports_not_assessed=False)
    node.receive("hand")
    node.run()
    corrected = node.receive("hand corrected")
    [parked] = node.jobs(JobState.PARKED)
    node.ledger.jobs[parked.job_id] = replace(parked, state=JobState.QUEUED, fault=None)
    node.run()
    assert node.ended(corrected) == (Outcome.NOT_ASSESSED, reason, None)
    _, second = node.reporter.requests
    assert second.finding is reason
    assert second.previous is not None


def test_pixels_that_a_new_model_refuses_replace_the_report_for_everybody() -> None:
    node = Node(reports_not_assessed=False)
    exam_id = node.receive("hand")
    node.run()
    node.predictor.answers["hand"] = Reason.INDETERMINATE
    [screened, *_] = node.jobs(JobState.DONE)
    node.ledger.jobs[screened.job_id] = replace(screened, state=JobState.QUEUED)
    node.run()
    assert node.ended(exam_id) == (Outcome.NOT_ASSESSED, Reason.INDETERMINATE, None)
    assert node.reporter.requests[-1].finding is Reason.INDETERMINATE


def test_without_a_usable_key_an_exam_is_reported_without_earlier_ones() -> None:
    def unusable(institution_id: str, header: Header) -> str | None:
        raise Permanent(Fault.STORAGE_UNAVAILABLE, "the key is damaged")

    node = Node(pseudonym=unusable)
    exam_id = node.receive("hand")
    node.run()
    assert node.ledger.exams[exam_id].outcome is Outcome.ASSESSED
    assert node.jobs(JobState.PARKED) == []
    eligibility = node.ledger.eligibility(exam_id)
    assert eligibility is not None
    assert eligibility.patient_pseudonym is None


def test_an_exam_is_counted_once_however_often_it_is_assessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted, delivered = [], []
    monkeypatch.setattr(metrics, "_count", lambda name, **_: counted.append(name))
    monkeypatch.setattr(metrics, "_observe", lambda name, *_, **__: delivered.append(name))
    node = Node()
    node.receive("hand")
    node.run()
    [screened, *_] = node.jobs(JobState.DONE)
    node.ledger.jobs[screened.job_id] = replace(screened, state=JobState.QUEUED)
    node.run()
    assert len(node.sender.sent) == 4
    assert counted.count("dicom_node_exams_total") == 1
    assert delivered.count("dicom_node_exam_seconds") == 1


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
        node.ledger.complete_deliver(late, confirm=False)
