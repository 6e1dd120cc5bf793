"""The port ``Ledger`` in memory, without a journal: for tests of stages and workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dicom_node.domain.assessment import Prediction, PriorResult
from dicom_node.domain.delivery import Answer, Delivery, PreviousReport, ReportObject, Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, LeaseLost
from dicom_node.domain.exam import UNKNOWN_SENDER, Exam, Instance, Outcome, Receipt
from dicom_node.domain.job import TO_DESTINATIONS, Job, JobEvent, JobState, Stage, next_state
from dicom_node.domain.retry import MAX_CRASHES, Park, RetryAt
from dicom_node.ports import Clock, Eligibility


@dataclass(kw_only=True)
class _Findings:
    eligibility: Eligibility | None = None
    prediction: Prediction | None = None
    objects: tuple[ReportObject, ...] = ()
    """Of the last revision."""
    revision: int = 0
    stored: dict[tuple[str, str], Answer] = field(default_factory=dict)


class InMemoryLedger:
    """One thread, one process. ``jobs`` and ``exams`` are open for a test to look at."""

    def __init__(self, clock: Clock) -> None:
        self.exams: dict[int, Exam] = {}
        self.jobs: dict[int, Job] = {}
        self._findings: dict[int, _Findings] = {}
        self._leases: dict[int, tuple[str, datetime]] = {}
        self._clock = clock

    def record_instance(self, instance: Instance) -> tuple[int, Receipt]:
        uid = instance.sop_instance_uid
        known = {
            exam.instance.content_sha256: exam_id
            for exam_id, exam in self.exams.items()
            if exam.instance.sop_instance_uid == uid
        }
        if instance.content_sha256 in known:
            self._fill_in_sender(known[instance.content_sha256], instance)
            self._queue_again(known[instance.content_sha256])
            return known[instance.content_sha256], Receipt.DUPLICATE
        exam_id = len(self.exams) + 1
        self.exams[exam_id] = Exam(
            exam_id=exam_id,
            instance=instance,
            study_instance_uid="",
            outcome=Outcome.PENDING,
            reason=None,
            notes=(),
        )
        self._findings[exam_id] = _Findings()
        fault = Fault.CONFLICTING_CONTENT if known else None
        self._enqueue(exam_id, Stage.SCREEN, fault=fault)
        return exam_id, Receipt.CONFLICT if known else Receipt.NEW

    def _fill_in_sender(self, exam_id: int, instance: Instance) -> None:
        exam = self.exams[exam_id]
        if exam.instance.institution_id == UNKNOWN_SENDER:
            named = replace(
                exam.instance,
                institution_id=instance.institution_id,
                calling_ae_title=instance.calling_ae_title,
                peer_address=instance.peer_address,
            )
            self.exams[exam_id] = replace(exam, instance=named)

    def _queue_again(self, exam_id: int) -> None:
        for job in self.jobs.values():
            mended = job.fault in (Fault.CORRUPT_SPOOL, Fault.INSTITUTION_UNKNOWN)
            if job.exam_id == exam_id and job.state is JobState.PARKED and mended:
                self.jobs[job.job_id] = replace(
                    job,
                    state=next_state(job.state, JobEvent.RETRY),
                    created_at=self._clock.now(),
                    run_after=self._clock.now(),
                    crashes=0,
                    fault=None,
                    detail="",
                )

    def claim(
        self,
        stages: Sequence[Stage],
        *,
        owner: str,
        lease_seconds: float,
        limit: int = 1,
        destination: str | None = None,
    ) -> list[Job]:
        now = self._clock.now()
        self._end_leases([job_id for job_id, (_, until) in self._leases.items() if until <= now])
        due = [
            job
            for job in self.jobs.values()
            if job.state is JobState.QUEUED
            and job.stage in stages
            and job.run_after <= now
            and destination in (None, job.destination)
        ]
        order = list(Stage)
        due.sort(key=lambda job: (-order.index(job.stage), job.run_after, job.job_id))
        expires_at = now + timedelta(seconds=lease_seconds)
        return [self._lease(job, owner, expires_at) for job in due[:limit]]

    def expire_leases(self, owner: str) -> int:
        held = [job_id for job_id, (holder, _) in self._leases.items() if holder == owner]
        self._end_leases(held)
        return len(held)

    def hurry(self, destination: str) -> int:
        hurried = 0
        for job in list(self.jobs.values()):
            waits = job.state is JobState.QUEUED and job.run_after > job.created_at
            away = job.fault is Fault.DESTINATION_UNAVAILABLE and job.destination == destination
            if waits and away:
                self.jobs[job.job_id] = replace(job, run_after=job.created_at)
                hurried += 1
        return hurried

    def open_destinations(self) -> frozenset[str]:
        return frozenset(
            job.destination
            for job in self.jobs.values()
            if job.state is JobState.QUEUED and job.stage in TO_DESTINATIONS
        )

    def exam(self, exam_id: int) -> Exam:
        return self.exams[exam_id]

    def eligibility(self, exam_id: int) -> Eligibility | None:
        return self._findings[exam_id].eligibility

    def prediction(self, exam_id: int) -> Prediction | None:
        return self._findings[exam_id].prediction

    def complete_screen(self, job: Job, eligibility: Eligibility) -> None:
        self._complete(job)
        self._findings[job.exam_id].eligibility = eligibility
        self._change_exam(
            job, study_instance_uid=eligibility.study_instance_uid, notes=eligibility.notes
        )
        self._enqueue(job.exam_id, Stage.INFER)

    def complete_ignored(self, job: Job, reason: Reason, *, study_instance_uid: str) -> None:
        self._complete(job)
        self._end_without_age(job, Outcome.IGNORED, reason, study_instance_uid)

    def complete_not_assessed(
        self, job: Job, reason: Reason, *, study_instance_uid: str, report: bool
    ) -> None:
        self._complete(job)
        self._end_without_age(job, Outcome.NOT_ASSESSED, reason, study_instance_uid)
        self._findings[job.exam_id].prediction = None
        if report:
            self._enqueue(job.exam_id, Stage.REPORT)

    def complete_infer(self, job: Job, prediction: Prediction) -> None:
        self._complete(job)
        self._findings[job.exam_id].prediction = prediction
        self._change_exam(job, outcome=Outcome.ASSESSED, reason=None)
        self._enqueue(job.exam_id, Stage.REPORT)

    def prior_results(self, exam_id: int) -> tuple[PriorResult, ...]:
        this = self._findings[exam_id].eligibility
        if this is None or this.study_date is None or this.patient_pseudonym is None:
            return ()
        found = []
        for other_id, other in self._findings.items():
            known, prediction = other.eligibility, other.prediction
            assessed = self.exams[other_id].outcome is Outcome.ASSESSED
            if (
                assessed
                and self._last_reported(other_id) == other_id
                and known
                and prediction
                and known.study_date
                and known.patient_pseudonym == this.patient_pseudonym
                and known.study_date < this.study_date
            ):
                prior = PriorResult(
                    study_date=known.study_date,
                    chronological_age_months=known.chronological_age_months,
                    bone_age_months=prediction.bone_age_months,
                    model=prediction.model,
                )
                found.append(prior)
        return tuple(sorted(found, key=lambda prior: prior.study_date))

    def previous_report(self, exam_id: int) -> PreviousReport | None:
        last_id = self._last_reported(exam_id)
        if last_id is None:
            return None
        return PreviousReport(
            revision=self._findings[last_id].revision,
            study_instance_uid=self.exams[last_id].study_instance_uid,
            objects=self._findings[last_id].objects,
        )

    def _last_reported(self, exam_id: int) -> int | None:
        reported = [
            (self._findings[other_id].revision, other_id)
            for other_id in self._about_the_image_of(exam_id)
            if self._findings[other_id].objects
        ]
        return max(reported)[1] if reported else None

    def _about_the_image_of(self, exam_id: int) -> list[int]:
        this = self.exams[exam_id].instance
        return [
            other_id
            for other_id, other in self.exams.items()
            if other.instance.sop_instance_uid == this.sop_instance_uid
            and other.instance.institution_id == this.institution_id
        ]

    def complete_report(
        self,
        job: Job,
        objects: Sequence[ReportObject],
        destinations: Sequence[str],
        *,
        revision: int,
    ) -> None:
        self._complete(job)
        self._findings[job.exam_id].objects = tuple(objects)
        self._findings[job.exam_id].revision = revision
        for destination in dict.fromkeys(destinations):
            self._enqueue(job.exam_id, Stage.DELIVER, destination=destination)

    def report_objects(self, exam_id: int) -> tuple[ReportObject, ...]:
        return self._findings[exam_id].objects

    def record_delivery(self, job: Job, delivery: Delivery) -> None:
        self._check_lease(job)
        if delivery.verdict is Verdict.STORED:
            stored = self._findings[job.exam_id].stored
            stored[delivery.destination, delivery.sop_instance_uid] = delivery.answer

    def delivered(self, exam_id: int, destination: str) -> dict[str, Answer]:
        return {
            uid: answer
            for other_id in self._about_the_image_of(exam_id)
            for (name, uid), answer in self._findings[other_id].stored.items()
            if name == destination
        }

    def complete_deliver(self, job: Job, *, confirm: bool) -> None:
        self._complete(job)
        if confirm:
            self._enqueue(job.exam_id, Stage.CONFIRM, destination=job.destination)

    def fail(self, job: Job, decision: RetryAt | Park) -> None:
        fault, detail = decision.fault, decision.detail
        if isinstance(decision, Park):
            self._leave(job, JobEvent.PARK, fault=fault, detail=detail)
        else:
            run_after = decision.run_after
            self._leave(job, JobEvent.RETRY_LATER, run_after=run_after, fault=fault, detail=detail)

    def is_own_report(self, sop_instance_uid: str) -> bool:
        made = [item for found in self._findings.values() for item in found.objects]
        return any(item.sop_instance_uid == sop_instance_uid for item in made)

    def _enqueue(
        self, exam_id: int, stage: Stage, *, destination: str = "", fault: Fault | None = None
    ) -> None:
        job_id, now = len(self.jobs) + 1, self._clock.now()
        self.jobs[job_id] = Job(
            job_id=job_id,
            exam_id=exam_id,
            stage=stage,
            destination=destination,
            state=JobState.PARKED if fault else JobState.QUEUED,
            attempt=0,
            crashes=0,
            created_at=now,
            run_after=now,
            fault=fault,
        )

    def _lease(self, job: Job, owner: str, expires_at: datetime) -> Job:
        state = next_state(job.state, JobEvent.CLAIM)
        self.jobs[job.job_id] = replace(job, state=state, attempt=job.attempt + 1)
        self._leases[job.job_id] = (owner, expires_at)
        return self.jobs[job.job_id]

    def _check_lease(self, job: Job) -> None:
        now = self.jobs[job.job_id]
        if (now.attempt, now.state) != (job.attempt, JobState.LEASED):
            raise LeaseLost(job.job_id)

    def _complete(self, job: Job) -> None:
        self._leave(job, JobEvent.COMPLETE, fault=None, detail="")

    def _leave(self, job: Job, step: JobEvent, **values: Any) -> None:
        self._check_lease(job)
        del self._leases[job.job_id]
        held = self.jobs[job.job_id]
        self.jobs[job.job_id] = replace(held, state=next_state(held.state, step), **values)

    def _end_leases(self, job_ids: Sequence[int]) -> None:
        for job in [self.jobs[job_id] for job_id in job_ids]:
            crashes, now = job.crashes + 1, self._clock.now()
            if crashes < MAX_CRASHES:
                self._leave(job, JobEvent.LEASE_EXPIRED, crashes=crashes, run_after=now)
            else:
                fault = Fault.CRASHED_REPEATEDLY
                self._leave(job, JobEvent.PARK, crashes=crashes, fault=fault, detail="crashed")

    def _change_exam(self, job: Job, **values: Any) -> None:
        self.exams[job.exam_id] = replace(self.exams[job.exam_id], **values)

    def _end_without_age(self, job: Job, outcome: Outcome, reason: Reason, study: str) -> None:
        self._change_exam(job, outcome=outcome, reason=reason, study_instance_uid=study)
