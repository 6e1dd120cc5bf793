"""Between rows and the domain's values, inside an open transaction."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Row,
    ScalarSelect,
    bindparam,
    func,
    select,
)

from dicom_node.adapters.ledger.schema import (
    deliveries,
    exams,
    instances,
    predictions,
    reports,
)
from dicom_node.domain.assessment import (
    HandBox,
    ModelIdentity,
    Note,
    Prediction,
    PriorResult,
    Saliency,
)
from dicom_node.domain.delivery import Answer, PreviousReport, ReportObject, Verdict
from dicom_node.domain.exam import Exam, Instance, Outcome
from dicom_node.ports import Eligibility

_INSTANCE_COLUMNS = tuple(instances.c[field.name] for field in fields(Instance))
REPORT_COLUMNS = (
    reports.c.kind,
    reports.c.sop_class_uid,
    reports.c.sop_instance_uid,
    reports.c.series_instance_uid,
    reports.c.encoded,
)


def _same_image(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Whether two rows of instances are one SOP instance of one institution."""
    return (one.c.sop_instance_uid == other.c.sop_instance_uid) & (
        one.c.institution_id == other.c.institution_id
    )


def _last_reported(image: FromClause) -> ScalarSelect[int]:
    """The exam with the last report about an image, a row of ``instances``; NULL without one."""
    about, reported = instances.alias(), exams.alias()
    return (
        select(reported.c.exam_id)
        .join(about, about.c.instance_id == reported.c.instance_id)
        .join(reports, reports.c.exam_id == reported.c.exam_id)
        .where(_same_image(about, image))
        .order_by(reports.c.revision.desc(), reports.c.report_id.desc())
        .limit(1)
        .correlate(image)
        .scalar_subquery()
    )


# Statements that every exam runs are made once: making one takes as long as running it
_THIS = bindparam("this_exam", type_=Integer)
_EXAMS_OF_UID = (
    select(instances.c.content_sha256, exams.c.exam_id)
    .join(exams, exams.c.instance_id == instances.c.instance_id)
    .where(instances.c.sop_instance_uid == bindparam("uid"))
)
_EXAM = (
    select(exams, *_INSTANCE_COLUMNS)
    .join(instances, instances.c.instance_id == exams.c.instance_id)
    .where(exams.c.exam_id == _THIS)
)
_ELIGIBILITY = select(exams).where(exams.c.exam_id == _THIS, exams.c.sex.is_not(None))
_PREDICTION = select(predictions).where(predictions.c.exam_id == _THIS)
_this_exam = select(exams).where(exams.c.exam_id == _THIS).subquery()
_PRIOR_RESULTS = (
    select(exams.c.study_date, exams.c.chronological_age_months, predictions)
    .join(predictions, predictions.c.exam_id == exams.c.exam_id)
    .join(instances, instances.c.instance_id == exams.c.instance_id)
    .join(_this_exam, _this_exam.c.patient_pseudonym == exams.c.patient_pseudonym)
    .where(
        exams.c.outcome == Outcome.ASSESSED,
        exams.c.patient_pseudonym.is_not(None),
        exams.c.study_date < _this_exam.c.study_date,
        exams.c.exam_id == _last_reported(instances),
    )
    .order_by(exams.c.study_date, exams.c.exam_id)
)
_REPORT_OBJECTS = (
    select(*REPORT_COLUMNS)
    .where(
        reports.c.exam_id == _THIS,
        reports.c.revision
        == select(func.max(reports.c.revision)).where(reports.c.exam_id == _THIS).scalar_subquery(),
    )
    .order_by(reports.c.report_id)
)
_LAST_REPORTED_EXAM = (
    select(_last_reported(instances))
    .select_from(instances)
    .join(exams, exams.c.instance_id == instances.c.instance_id)
    .where(exams.c.exam_id == _THIS)
)
_LAST_REVISION = (
    select(func.max(reports.c.revision), exams.c.study_instance_uid)
    .join(exams, exams.c.exam_id == reports.c.exam_id)
    .where(exams.c.exam_id == _THIS)
)
_this_image = (
    select(instances)
    .join(exams, exams.c.instance_id == instances.c.instance_id)
    .where(exams.c.exam_id == _THIS)
    .subquery()
)
_DELIVERED = (
    select(deliveries)
    .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
    .join(exams, exams.c.exam_id == reports.c.exam_id)
    .join(instances, instances.c.instance_id == exams.c.instance_id)
    .join(_this_image, _same_image(_this_image, instances))
    .where(deliveries.c.destination == bindparam("goal"), deliveries.c.verdict == Verdict.STORED)
)


def instance_values(instance: Instance) -> dict[str, object]:
    """An instance as columns."""
    return {column.name: getattr(instance, column.name) for column in _INSTANCE_COLUMNS}


def exams_by_content(connection: Connection, sop_instance_uid: str) -> dict[str, int]:
    """Content hash to exam id, of every instance that arrived under this UID."""
    known = connection.execute(_EXAMS_OF_UID, {"uid": sop_instance_uid})
    return {row.content_sha256: row.exam_id for row in known}


def exam(connection: Connection, exam_id: int) -> Exam:
    """One exam with its instance. Raises ``KeyError`` when there is none."""
    row = connection.execute(_EXAM, {"this_exam": exam_id}).first()
    if row is None:
        raise KeyError(exam_id)
    return Exam(
        exam_id=row.exam_id,
        instance=Instance(
            **{column.name: row._mapping[column.name] for column in _INSTANCE_COLUMNS}
        ),
        study_instance_uid=row.study_instance_uid,
        outcome=row.outcome,
        reason=row.reason,
        notes=tuple(row.notes),
    )


def image_purged_at(connection: Connection, exam_id: int) -> datetime | None:
    """When an exam's image was purged; None while it is here."""
    wanted = (
        select(instances.c.purged_at)
        .join(exams, exams.c.instance_id == instances.c.instance_id)
        .where(exams.c.exam_id == exam_id)
    )
    return connection.execute(wanted).scalar()


def eligibility(connection: Connection, exam_id: int) -> Eligibility | None:
    """What screening found; None before it or when it found none."""
    row = connection.execute(_ELIGIBILITY, {"this_exam": exam_id}).first()
    if row is None:
        return None
    return Eligibility(
        study_instance_uid=row.study_instance_uid,
        sex=row.sex,
        laterality=row.laterality,
        view_position=row.view_position,
        chronological_age_months=row.chronological_age_months,
        study_date=row.study_date,
        patient_pseudonym=row.patient_pseudonym,
        notes=tuple(Note(note) for note in row.notes),
    )


def prediction_values(prediction: Prediction) -> dict[str, object]:
    """A prediction as columns."""
    return {
        "bone_age_months": prediction.bone_age_months,
        "sd_months": prediction.sd_months,
        "hand_left": prediction.hand_box.left,
        "hand_top": prediction.hand_box.top,
        "hand_right": prediction.hand_box.right,
        "hand_bottom": prediction.hand_box.bottom,
        "model_name": prediction.model.name,
        "model_version": prediction.model.version,
        "model_sha256": prediction.model.sha256,
        "findings": list(prediction.findings),
        "saliency": None if prediction.saliency is None else asdict(prediction.saliency),
    }


def prediction(connection: Connection, exam_id: int) -> Prediction | None:
    """The stored prediction, None without one."""
    row = connection.execute(_PREDICTION, {"this_exam": exam_id}).first()
    return None if row is None else _prediction(row)


def _prediction(row: Row[*tuple[Any, ...]]) -> Prediction:
    return Prediction(
        bone_age_months=row.bone_age_months,
        sd_months=row.sd_months,
        hand_box=HandBox(
            left=row.hand_left, top=row.hand_top, right=row.hand_right, bottom=row.hand_bottom
        ),
        findings=tuple(Note(found) for found in row.findings),
        saliency=None if row.saliency is None else _saliency(row.saliency),
        model=_model(row),
    )


def _model(row: Row[*tuple[Any, ...]]) -> ModelIdentity:
    return ModelIdentity(name=row.model_name, version=row.model_version, sha256=row.model_sha256)


def prior_results(connection: Connection, exam_id: int) -> tuple[PriorResult, ...]:
    """Assessed exams of the same patient at earlier study dates, oldest first; of an image that
    was corrected only the exam that holds its last report."""
    return tuple(
        PriorResult(
            study_date=row.study_date,
            chronological_age_months=row.chronological_age_months,
            bone_age_months=row.bone_age_months,
            model=_model(row),
        )
        for row in connection.execute(_PRIOR_RESULTS, {"this_exam": exam_id})
    )


def _saliency(stored: dict[str, Any]) -> Saliency:
    levels = tuple(tuple(row) for row in stored["levels"])
    return Saliency(box=HandBox(**stored["box"]), levels=levels)


def report_values(made: ReportObject) -> dict[str, object]:
    """A report object as columns."""
    return {column.name: getattr(made, column.name) for column in REPORT_COLUMNS}


def report_objects(connection: Connection, exam_id: int) -> tuple[ReportObject, ...]:
    """The objects of the last revision of one exam's report, in the order in which they were
    stored."""
    stored = connection.execute(_REPORT_OBJECTS, {"this_exam": exam_id})
    return tuple(ReportObject(**row._mapping) for row in stored)


def last_reported_exam(connection: Connection, exam_id: int) -> int | None:
    """Which exam holds the last report about the same SOP instance from the same institution: this
    one, or one of a corrected header. None before the first report."""
    return connection.execute(_LAST_REPORTED_EXAM, {"this_exam": exam_id}).scalar_one()


def previous_report(connection: Connection, exam_id: int) -> PreviousReport | None:
    """The last report about the same SOP instance from the same institution."""
    holder = last_reported_exam(connection, exam_id)
    if holder is None:
        return None
    revision, study_instance_uid = connection.execute(_LAST_REVISION, {"this_exam": holder}).one()
    return PreviousReport(
        revision=revision,
        study_instance_uid=study_instance_uid,
        objects=report_objects(connection, holder),
    )


def delivered(connection: Connection, exam_id: int, destination: str) -> dict[str, Answer]:
    """What a destination has stored of all reports about the same SOP instance from the same
    institution: SOP Instance UID, as made, to its answer."""
    stored = connection.execute(_DELIVERED, {"this_exam": exam_id, "goal": destination})
    return {
        row.sop_instance_uid: Answer(
            status=row.status,
            sent_sop_class_uid=row.sent_sop_class_uid,
            sent_sop_instance_uid=row.sent_sop_instance_uid,
        )
        for row in stored
    }
