"""REPORT: from a prediction, or a reason why there is none, to encoded report objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dicom_node.domain.assessment import (
    Assessment,
    Prediction,
    PriorResult,
    ReferenceTable,
    assess,
)
from dicom_node.domain.delivery import DRAWN, PreviousReport, ReportKind, ReportObject
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Exam, Outcome
from dicom_node.domain.job import Job
from dicom_node.logs import log
from dicom_node.ports import Eligibility, Ledger, Reporter, ReportRequest, Spool

_ATTEMPTS_TO_DRAW = 3


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where an institution's reports go, as which objects and in which language."""

    language: str
    destinations: tuple[str, ...]
    report_not_assessed: bool
    kinds: frozenset[ReportKind]
    keep_character_set: bool


def assessment_of(
    eligibility: Eligibility,
    prediction: Prediction,
    reference: ReferenceTable,
    priors: tuple[PriorResult, ...] = (),
) -> Assessment:
    """What the report states: the one place for the network path and for offline prediction."""
    return assess(
        prediction,
        sex=eligibility.sex,
        laterality=eligibility.laterality,
        view_position=eligibility.view_position,
        chronological_age_months=eligibility.chronological_age_months,
        reference=reference,
        notes=eligibility.notes,
        study_date=eligibility.study_date,
        priors=priors,
    )


class Report:
    """Runs one job(REPORT). ``route``: institution id to its Route, None when it is not known."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        reporter: Reporter,
        reference: ReferenceTable,
        route: Callable[[str], Route | None],
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._reporter = reporter
        self._reference = reference
        self._route = route

    def __call__(self, job: Job) -> None:
        """Build, store and queue for delivery. What was reported before is revised: the new
        documents name those that they replace (PS3.3 C.17.2.6).

        The time in the report is that of the job, so that a repeated attempt builds the same bytes.
        """
        exam = self._ledger.exam(job.exam_id)
        route = self._route(exam.instance.institution_id)
        if route is None:
            raise Permanent(
                Fault.INSTITUTION_UNKNOWN,
                f"exam {exam.exam_id} belongs to no configured institution, so its report has no "
                "destination: have the image sent again or add the institution, then "
                f"`dicom-node job retry {job.job_id}`",
            )
        previous = self._ledger.previous_report(exam.exam_id)
        request = ReportRequest(
            path=self._spool.path(exam.instance.content_sha256),
            content_sha256=exam.instance.content_sha256,
            finding=self._finding(exam),
            language=route.language,
            reported_at=job.created_at,
            kinds=route.kinds,
            previous=previous,
            keep_character_set=route.keep_character_set,
        )
        objects = self._reporter.build(request)
        self._require_pictures(job, route, objects)
        revision = _revision(objects, previous)
        self._ledger.complete_report(job, objects, route.destinations, revision=revision)
        log("report_built", exam_id=exam.exam_id, count=len(objects))

    def _require_pictures(self, job: Job, route: Route, objects: tuple[ReportObject, ...]) -> None:
        """A passing failure to draw costs seconds, a lasting one the picture, not the report."""
        if route.kinds & DRAWN <= {made.kind for made in objects}:
            return
        if job.attempt < _ATTEMPTS_TO_DRAW:
            raise Transient(
                Fault.PICTURE_NOT_DRAWN, f"exam {job.exam_id}: its picture could not be drawn"
            )
        log("picture_missing", exam_id=job.exam_id)

    def _finding(self, exam: Exam) -> Assessment | Reason:
        if exam.outcome is Outcome.NOT_ASSESSED and exam.reason:
            return Reason(exam.reason)
        eligibility = self._ledger.eligibility(exam.exam_id)
        prediction = self._ledger.prediction(exam.exam_id)
        if eligibility is None or prediction is None:
            raise Permanent(Fault.UNEXPECTED, f"exam {exam.exam_id} has nothing to report")
        priors = self._ledger.prior_results(exam.exam_id)
        return assessment_of(eligibility, prediction, self._reference, priors)


def _revision(objects: tuple[ReportObject, ...], previous: PreviousReport | None) -> int:
    """That of the previous report where nothing has changed, else the next one."""
    if previous is None:
        return 1
    known = {made.sop_instance_uid for made in previous.objects}
    unchanged = all(made.sop_instance_uid in known for made in objects)
    return previous.revision if unchanged else previous.revision + 1
