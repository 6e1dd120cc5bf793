"""audit: what the trail on this machine holds; and how the other commands tell it their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from dicom_node.adapters.audit import AuditEntry, operator, read_entries
from dicom_node.cli.options import (
    config_option,
    json_option,
    limit_option,
    readable_errors,
    settings_from,
)
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.domain.audit import Action, Subject, accessed, audit_log_used
from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import Exam
from dicom_node.headers import read_subject
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring


@click.command()
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="Only messages from this time on (UTC).",
)
@limit_option(100)
@config_option
@json_option
@click.pass_obj
def audit(
    screen: Screen, since: datetime | None, limit: int, config: Path | None, as_json: bool
) -> None:
    """The newest messages of the audit trail on this machine. They name patients; looking is
    recorded as well."""
    wiring = Wiring(settings_from(config))
    folders = wiring.folders.audit
    if not folders.root.is_dir():
        raise Failed(screen.text("no_audit", path=folders.root))
    with readable_errors():
        found = read_entries(folders, since=since.replace(tzinfo=UTC) if since else None)
    uri = folders.root.resolve().as_uri()
    used = audit_log_used(uri, operator(), wiring.application, wiring.clock.now())
    _warn(screen, wiring, recorded=wiring.trail.record(used))
    if as_json:
        print_json([asdict(entry) for entry in found[-limit:]])
    else:
        _show(screen, found[-limit:])


def _show(screen: Screen, entries: list[AuditEntry]) -> None:
    screen.table(
        "audit_title",
        ("at", "event", "action", "outcome", "who", "what"),
        [
            (
                entry.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                entry.event,
                entry.action,
                entry.outcome,
                "; ".join(entry.who),
                "; ".join(entry.what),
            )
            for entry in entries
        ],
    )


def audit_access(
    screen: Screen,
    settings: Settings,
    exam: Exam,
    action: Action,
    told: Mapping[str, str],
    *,
    failed: bool = False,
) -> None:
    """Record what an operator did with an exam (PS3.15 A.5.3.6); a warning on standard error when
    that is not possible. ``told``: the step, and the reason where one was given."""
    wiring = Wiring(settings)
    message = accessed(
        action,
        _subject(wiring, exam),
        operator(),
        wiring.application,
        wiring.clock.now(),
        details=told,
        failed=failed,
    )
    _warn(screen, wiring, recorded=wiring.trail.record(message))


def _subject(wiring: Wiring, exam: Exam) -> Subject:
    """The ledger knows no patient: whose the exam is stands in the object."""
    try:
        return read_subject(wiring.spool.path(exam.instance.content_sha256))
    except NodeError:
        return Subject(study_instance_uid=exam.study_instance_uid)


def _warn(screen: Screen, wiring: Wiring, *, recorded: bool) -> None:
    if not recorded:
        click.echo(screen.text("audit_failed", path=wiring.folders.audit.root), err=True)
