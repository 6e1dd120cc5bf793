"""INFER: estimate the bone age of one or more exams in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dicom_node.domain.assessment import Prediction
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, NodeError, Permanent
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import Job
from dicom_node.logs import log
from dicom_node.metrics import exam_ended
from dicom_node.ports import Ledger, PredictionRequest, Predictor, Spool


class Infer:
    """Runs job(INFER) for a batch; each job ends on its own."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        predictor: Predictor,
        reports_not_assessed: Callable[[str], bool],
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._predictor = predictor
        self._reports_not_assessed = reports_not_assessed

    def __call__(self, jobs: Iterable[Job]) -> list[Exception | None]:
        """Predict all jobs together; one error or None per job, in order. A job is taken when the
        one before is prepared."""
        errors: dict[Job, NodeError | None] = {}

        def requests() -> Iterator[PredictionRequest]:
            for job in jobs:
                try:
                    request = self._request(job)
                except NodeError as error:
                    errors[job] = error
                else:
                    errors[job] = None
                    yield request

        answers = iter(self._predictor.predict(requests()))
        return [error or self._settle(job, next(answers)) for job, error in errors.items()]

    def _request(self, job: Job) -> PredictionRequest:
        eligibility = self._ledger.eligibility(job.exam_id)
        if eligibility is None:
            raise Permanent(Fault.UNEXPECTED, f"exam {job.exam_id} was never found eligible")
        instance = self._ledger.exam(job.exam_id).instance
        return PredictionRequest(
            path=self._spool.path(instance.content_sha256), sex=eligibility.sex
        )

    def _settle(self, job: Job, answer: Prediction | Reason | Exception) -> Exception | None:
        try:
            if isinstance(answer, Exception):
                return answer
            if isinstance(answer, Reason):
                self._refuse(job, answer)
            else:
                exam = self._ledger.exam(job.exam_id)
                self._ledger.complete_infer(job, answer)
                log("exam_assessed", exam_id=job.exam_id, model=answer.model.name)
                exam_ended(Outcome.ASSESSED, before=exam.outcome)
        except NodeError as error:
            return error
        return None

    def _refuse(self, job: Job, reason: Reason) -> None:
        exam = self._ledger.exam(job.exam_id)
        reported = self._ledger.previous_report(job.exam_id) is not None
        self._ledger.complete_not_assessed(
            job,
            reason,
            study_instance_uid=exam.study_instance_uid,
            report=reported or self._reports_not_assessed(exam.instance.institution_id),
        )
        log("exam_not_assessed", exam_id=job.exam_id, reason=reason)
        exam_ended(Outcome.NOT_ASSESSED, reason, before=exam.outcome)
