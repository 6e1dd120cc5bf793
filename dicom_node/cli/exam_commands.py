"""status, exam and job: what the ledger knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dicom_node.adapters.ledger.queries import ExamDetails, ExamSummary, OperatorLedger
from dicom_node.cli.audit_commands import audit_access
from dicom_node.cli.options import (
    config_option,
    json_option,
    limit_option,
    operator_ledger,
    readable_errors,
    row_id,
    settings_from,
)
from dicom_node.cli.output import Failed, Screen, months_in_words, print_json
from dicom_node.domain.audit import Action
from dicom_node.domain.exam import Exam, Outcome
from dicom_node.domain.job import ForbiddenTransition, Job, JobState
from dicom_node.node import readiness
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring

_LAST_EXAMS = 10


@click.command()
@config_option
@json_option
@click.pass_obj
def status(screen: Screen, config: Path | None, as_json: bool) -> None:
    """Queues, destinations, model and last exams, without patient data."""
    settings = settings_from(config)
    with readable_errors(), operator_ledger(screen, settings) as ledger:
        found = _status(settings, ledger)
    if as_json:
        print_json(found)
    else:
        _show_status(screen, found)


def _status(settings: Settings, ledger: OperatorLedger) -> dict[str, Any]:
    quarantine = Wiring(settings).quarantine
    depths = ledger.queue_depths()
    ages = ledger.oldest_job_seconds()
    return {
        "node": settings.node.name,
        "region": settings.node.region,
        "ready": readiness(settings),
        "queues": [
            {
                "stage": stage,
                "state": state,
                "jobs": count,
                "oldest_seconds": None
                if state is JobState.PARKED
                else round(ages.get(stage, 0.0), 1),
            }
            for (stage, state), count in depths.items()
            if count
        ],
        "exams": [
            {"outcome": outcome, "reason": reason, "exams": count}
            for (outcome, reason), count in ledger.outcome_counts().items()
        ],
        "destinations": [
            {"name": d.name, "ae_title": d.ae_title, "host": d.host, "port": d.port}
            for d in settings.destinations
        ],
        "model": settings.inference.model,
        "quarantine": asdict(quarantine.contents()) | {"folder": str(quarantine.folder)},
        "last_exams": [_summary(summary) for summary in ledger.exams(limit=_LAST_EXAMS)],
    }


def _show_status(screen: Screen, found: dict[str, Any]) -> None:
    screen.say(
        "status_head", node=found["node"], region=found["region"], ready=found["ready"]["status"]
    )
    for name, result in found["ready"]["checks"].items():
        if result != "ok":
            screen.say("status_check", name=name, result=result)
    screen.table(
        "queues",
        ("stage", "state", "jobs", "oldest_seconds"),
        [list(row.values()) for row in found["queues"]],
    )
    screen.table(
        "outcomes", ("outcome", "reason", "exams"), [list(row.values()) for row in found["exams"]]
    )
    screen.table(
        "destinations",
        ("name", "ae_title", "host", "port"),
        [list(row.values()) for row in found["destinations"]],
    )
    screen.say("model_line", model=found["model"])
    if found["quarantine"]["files"]:
        screen.say("quarantine_line", **found["quarantine"])
    _show_exams(screen, found["last_exams"])


@click.group()
def exam() -> None:
    """What happened to exams."""


@exam.command("list")
@limit_option(20)
@click.option(
    "--outcome", type=click.Choice([o.value for o in Outcome]), help="Only exams with this outcome."
)
@config_option
@json_option
@click.pass_obj
def exam_list(
    screen: Screen, limit: int, outcome: str | None, config: Path | None, as_json: bool
) -> None:
    """The newest exams first."""
    with readable_errors(), operator_ledger(screen, settings_from(config)) as ledger:
        found = ledger.exams(limit=limit, outcome=Outcome(outcome) if outcome else None)
    rows = [_summary(summary) for summary in found]
    if as_json:
        print_json(rows)
    else:
        _show_exams(screen, rows)


@exam.command("show")
@click.argument("exam_id", type=row_id)
@config_option
@json_option
@click.pass_obj
def exam_show(screen: Screen, exam_id: int, config: Path | None, as_json: bool) -> None:
    """One exam's journey with times, and why it was not assessed."""
    settings = settings_from(config)
    with readable_errors(), operator_ledger(screen, settings) as ledger:
        try:
            details = ledger.exam_details(exam_id)
        except KeyError:
            raise Failed(screen.text("no_exam", exam_id=exam_id)) from None
    audit_access(screen, settings, details.exam, Action.READ, {"Step": f"exam show {exam_id}"})
    if as_json:
        print_json(_as_json(details))
    else:
        _show_exam(screen, details)


@exam.command("reassess")
@click.argument("exam_id", type=row_id)
@config_option
@click.pass_obj
def exam_reassess(screen: Screen, exam_id: int, config: Path | None) -> None:
    """Assess an exam again, with the model of now; a changed result revises its report."""
    _operate(
        screen,
        config,
        lambda ledger: ledger.reassess(exam_id),
        exam_of=lambda ledger: ledger.exam(exam_id),
        told={"Step": f"exam reassess {exam_id}"},
        done="exam_reassessed",
        unknown="no_exam",
        exam_id=exam_id,
    )


def _as_json(details: ExamDetails) -> dict[str, Any]:
    """Everything but the saliency, which is for pictures, and what is about the patient."""
    found = asdict(details) | {"notes": details.notes}
    if found["prediction"]:
        del found["prediction"]["saliency"]
    if found["eligibility"]:
        del found["eligibility"]["study_date"], found["eligibility"]["patient_pseudonym"]
    return found


def _summary(summary: ExamSummary) -> dict[str, Any]:
    return {
        "exam_id": summary.exam_id,
        "received_at": _time(summary.received_at),
        "institution": summary.institution_id,
        "sender": summary.calling_ae_title,
        "outcome": summary.outcome,
        "reason": summary.reason or "",
        "open_jobs": " ".join(_job_in_words(job) for job in summary.open_jobs),
    }


def _show_exams(screen: Screen, rows: list[dict[str, Any]]) -> None:
    columns = ("exam_id", "received_at", "institution", "sender", "outcome", "reason", "open_jobs")
    screen.table("exams_title", columns, [list(row.values()) for row in rows])


def _show_exam(screen: Screen, details: ExamDetails) -> None:
    exam = details.exam
    screen.say("exam_head", exam_id=exam.exam_id, outcome=exam.outcome, reason=exam.reason or "-")
    if exam.reason:
        screen.say("exam_reason", explanation=screen.explain(exam.reason))
    for note in details.notes:
        screen.say("note", explanation=screen.explain(note))
    screen.say(
        "exam_source",
        sop_instance_uid=exam.instance.sop_instance_uid,
        sender=exam.instance.calling_ae_title,
        institution=exam.instance.institution_id,
    )
    if details.prediction:
        screen.say(
            "exam_prediction",
            age=months_in_words(details.prediction.bone_age_months, screen),
            sd=screen.number(details.prediction.sd_months, ".1f"),
            model=details.prediction.model.name,
            version=details.prediction.model.version,
        )
    _show_journal(screen, details)
    screen.table(
        "reports",
        ("revision", "kind", "sop_instance_uid", "bytes"),
        [(r.revision, r.kind, r.sop_instance_uid, r.size_bytes or "-") for r in details.reports],
    )
    screen.table(
        "deliveries",
        ("destination", "status", "verdict", "evidence", "sop_class", "at"),
        [
            (
                d.destination,
                f"{d.status:04X}",
                d.verdict,
                d.evidence,
                d.sent_sop_class_uid,
                _time(d.answered_at),
            )
            for d in details.deliveries
        ],
    )
    _show_jobs(screen, list(details.jobs))


def _show_journal(screen: Screen, details: ExamDetails) -> None:
    begun = details.exam.instance.received_at
    screen.table(
        "journey",
        ("at", "after_seconds", "event", "detail"),
        [
            (_time(e.at), f"{(e.at - begun).total_seconds():.3f}", e.event, e.detail)
            for e in details.journal
        ],
    )


@click.group()
def job() -> None:
    """Jobs, and what a person may do with them."""


@job.command("list")
@limit_option(50)
@click.option(
    "--state", type=click.Choice([s.value for s in JobState]), help="Only jobs in this state."
)
@config_option
@json_option
@click.pass_obj
def job_list(
    screen: Screen, limit: int, state: str | None, config: Path | None, as_json: bool
) -> None:
    """Jobs by state; parked ones wait for you."""
    with readable_errors(), operator_ledger(screen, settings_from(config)) as ledger:
        found = ledger.jobs(limit=limit, state=JobState(state) if state else None)
    if as_json:
        print_json([asdict(item) for item in found])
    else:
        _show_jobs(screen, found)


@job.command("retry")
@click.argument("job_id", type=row_id)
@config_option
@click.pass_obj
def job_retry(screen: Screen, job_id: int, config: Path | None) -> None:
    """Queue a parked job again."""
    _operate_job(
        screen,
        config,
        "job_retried",
        job_id,
        lambda ledger: ledger.retry_job(job_id),
        {"Step": f"job retry {job_id}"},
    )


@job.command("park")
@click.argument("job_id", type=row_id)
@click.option("--reason", required=True, help="Why; stays with the job. No patient data.")
@config_option
@click.pass_obj
def job_park(screen: Screen, job_id: int, reason: str, config: Path | None) -> None:
    """Keep a queued job from running until you retry or discard it."""
    _operate_job(
        screen,
        config,
        "job_parked",
        job_id,
        lambda ledger: ledger.park_job(job_id, reason),
        {"Step": f"job park {job_id}", "Reason": reason},
    )


@job.command("discard")
@click.argument("job_id", type=row_id)
@click.option("--reason", required=True, help="Why; stays with the job. No patient data.")
@config_option
@click.pass_obj
def job_discard(screen: Screen, job_id: int, reason: str, config: Path | None) -> None:
    """Give a job up for good."""
    _operate_job(
        screen,
        config,
        "job_discarded",
        job_id,
        lambda ledger: ledger.discard_job(job_id, reason),
        {"Step": f"job discard {job_id}", "Reason": reason},
    )


def _operate_job(
    screen: Screen,
    config: Path | None,
    done: str,
    job_id: int,
    step: Callable[[OperatorLedger], None],
    told: dict[str, str],
) -> None:
    _operate(
        screen,
        config,
        step,
        exam_of=lambda ledger: ledger.exam_of_job(job_id),
        told=told,
        done=done,
        unknown="no_job",
        job_id=job_id,
    )


def _operate(
    screen: Screen,
    config: Path | None,
    step: Callable[[OperatorLedger], None],
    *,
    exam_of: Callable[[OperatorLedger], Exam],
    told: dict[str, str],
    done: str,
    unknown: str,
    **which: int,
) -> None:
    """Take a step, tell the audit trail (``told``) and say so; ``unknown``: what to say when there
    is no such row."""
    settings = settings_from(config)
    with readable_errors(), operator_ledger(screen, settings) as ledger:
        try:
            exam = exam_of(ledger)
            step(ledger)
        except KeyError:
            raise Failed(screen.text(unknown, **which)) from None
        except ForbiddenTransition as error:
            audit_access(screen, settings, exam, Action.UPDATE, told, failed=True)
            raise Failed(str(error)) from None
    audit_access(screen, settings, exam, Action.UPDATE, told)
    screen.say(done, **which)


def _show_jobs(screen: Screen, jobs: list[Job]) -> None:
    screen.table(
        "jobs_title",
        ("job_id", "exam_id", "stage", "destination", "state", "attempt", "fault", "detail"),
        [
            (j.job_id, j.exam_id, j.stage, j.destination, j.state, j.attempt, j.fault, j.detail)
            for j in jobs
        ],
    )


def _job_in_words(job: Job) -> str:
    target = f">{job.destination}" if job.destination else ""
    return f"{job.stage}{target}:{job.state}"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
