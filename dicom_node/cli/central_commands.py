"""central: the database that learns pseudonymous metadata of all regions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dicom_node.adapters.central.archive import KnownExam
from dicom_node.adapters.central.migrate import migrate
from dicom_node.adapters.central.months import CentralMonths, MonthTable
from dicom_node.cli.options import config_option, json_option, readable_errors, settings_from
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.cli.report_commands import central_prices
from dicom_node.domain.errors import NodeError
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring

_since_option = click.option(
    "--since",
    required=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Exams that were received from then on (UTC).",
)
_url_option = click.option(
    "--url",
    required=True,
    help="postgresql://OWNER@HOST/DATABASE: the owner of the central database.",
)
_password_option = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The owner's password, as libpq reads it (passfile).",
)
_region_option = click.option("--region", help="Of one region only.")
_MONTH = click.DateTime(["%Y-%m"])


@click.group()
def central() -> None:
    """The centre: what it knows, and what it has still to learn."""


central.add_command(central_prices)


@central.command("migrate")
@_url_option
@_password_option
@click.pass_obj
def central_migrate(screen: Screen, url: str, password_file: Path | None) -> None:
    """Make or upgrade the central database, and the partitions of the coming months.

    Run it with each new version before its nodes start, and once a month.
    """
    with readable_errors():
        revision = migrate(url, password_file=password_file)
    screen.say("central_migrated", revision=revision)


@central.command("detach")
@_url_option
@_password_option
@click.option("--before", required=True, type=_MONTH, help="The first month that stays (UTC).")
@_region_option
@click.option("--dry-run", is_flag=True, help="Only show what would be detached.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def central_detach(
    screen: Screen,
    url: str,
    password_file: Path | None,
    before: datetime,
    region: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take whole months out of the central tables: each becomes tables by itself.

    Nodes and reports go on. The tables can be dumped (pg_dump -t), dropped, restored, and attached
    again. An exam of such a month that a node sends later is refused.
    """
    months = CentralMonths(url, password_file=password_file)
    with readable_errors():
        found = months.attached(before.date(), region)
        if not dry_run:
            if found and not yes:
                _show(screen, "central_attached", found, as_json=False)
                click.confirm(screen.text("central_detach_asks"), abort=True, err=True)
            months.detach(found)
    _show(screen, "central_attached" if dry_run else "central_detached", found, as_json=as_json)


@central.command("attach")
@click.argument("month", type=_MONTH)
@_url_option
@_password_option
@_region_option
@json_option
@click.pass_obj
def central_attach(
    screen: Screen,
    month: datetime,
    url: str,
    password_file: Path | None,
    region: str | None,
    as_json: bool,
) -> None:
    """Put a month back that was detached.

    An exam that came again in between, under another time, stays as it came last.
    """
    with readable_errors():
        found = CentralMonths(url, password_file=password_file).attach(month.date(), region)
    _show(screen, "central_attached", found, as_json=as_json)


@central.command("status")
@config_option
@json_option
@click.pass_obj
def central_status(screen: Screen, config: Path | None, as_json: bool) -> None:
    """Whether the centre answers, and what waits for it."""
    settings = settings_from(config)
    with readable_errors():
        found = _status(_wired(screen, settings))
    if as_json:
        print_json(found)
    else:
        screen.say("central_status", **{key: "-" if v is None else v for key, v in found.items()})
    if found["problem"]:
        raise Failed(found["problem"])


@central.command("replay")
@_since_option
@config_option
@click.pass_obj
def central_replay(screen: Screen, since: datetime, config: Path | None) -> None:
    """Tell the centre again what it was told, after it was restored or lost."""
    with readable_errors():
        count = _wired(screen, settings_from(config)).outbox.replay(since.replace(tzinfo=UTC))
    screen.say("central_replayed", count=count)


@central.command("missing")
@_since_option
@config_option
@json_option
@click.pass_obj
def central_missing(screen: Screen, since: datetime, config: Path | None, as_json: bool) -> None:
    """Exams that the centre knows of this node and that its ledger lacks, as after a restore.

    Have their senders send again what they sent at these times.
    """
    with readable_errors():
        missing = _missing(_wired(screen, settings_from(config)), since.replace(tzinfo=UTC))
    if as_json:
        print_json([asdict(exam) for exam in missing])
        return
    screen.table(
        "central_missing",
        ("at", "institution", "exam_pseudonym"),
        [
            (exam.received_at.isoformat(), exam.institution_id, exam.exam_pseudonym)
            for exam in missing
        ],
    )


@central.command("renew-key")
@click.argument("institution")
@config_option
@click.pass_obj
def central_renew_key(screen: Screen, institution: str, config: Path | None) -> None:
    """A new key for the pseudonyms of an institution's exams from now on."""
    settings = settings_from(config)
    if institution not in {item.id for item in settings.institutions}:
        raise Failed(screen.text("no_institution", institution=institution))
    with readable_errors():
        key_id = _wired(screen, settings).central_pseudonyms.renew(institution)
    screen.say("central_key_renewed", institution=institution, key_id=key_id)


def _show(screen: Screen, title: str, tables: tuple[MonthTable, ...], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(table) for table in tables])
        return
    screen.table(
        title,
        ("month", "region", "central_table", "rows", "megabytes"),
        [
            (f"{table.month:%Y-%m}", table.region, table.name, table.rows, table.bytes // 1_000_000)
            for table in tables
        ],
    )


def _wired(screen: Screen, settings: Settings) -> Wiring:
    wiring = Wiring(settings)
    if wiring.centre is None:
        raise Failed(screen.text("no_centre"))
    if not wiring.folders.ledger.is_file():
        raise Failed(screen.text("no_ledger", path=wiring.folders.ledger))
    return wiring


def _missing(wiring: Wiring, since: datetime) -> list[KnownExam]:
    assert wiring.centre is not None
    here = {
        wiring.central_pseudonyms.of(exam, None).exam_pseudonym
        for exam in wiring.outbox.exams_since(since)
    }
    known = wiring.centre.exams_since(since)
    return [exam for exam in known if exam.exam_pseudonym not in here]


def _status(wiring: Wiring) -> dict[str, Any]:
    backlog, known, problem = wiring.outbox.backlog(), None, None
    assert wiring.centre is not None
    try:
        known = wiring.centre.last_batch()
    except NodeError as error:
        problem = str(error)
    return {
        "region": wiring.settings.node.region,
        "node": wiring.settings.node.name,
        "waiting": backlog.waiting,
        "oldest_at": backlog.oldest_at.isoformat() if backlog.oldest_at else None,
        "refused": backlog.refused,
        "last_batch_here": wiring.outbox.last_batch(),
        "last_batch_there": known,
        "problem": problem,
    }
