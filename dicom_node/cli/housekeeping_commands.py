"""purge, and archive: what leaves the node by its age, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.progress import Progress

from dicom_node.adapters.audit import operator
from dicom_node.cli.options import (
    config_option,
    json_option,
    readable_errors,
    row_id,
    settings_from,
)
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.domain.errors import NodeError
from dicom_node.housekeeping import opened_archive, opened_purge
from dicom_node.stages.archive import Archive, Moved
from dicom_node.wiring import Wiring

_since_option = click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="All exams that were received from then on (UTC).",
)
_exams_argument = click.argument("exams", type=row_id, nargs=-1)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@config_option
@json_option
@click.pass_obj
def purge(screen: Screen, dry_run: bool, config: Path | None, as_json: bool) -> None:
    """Remove what [retention] does not keep any longer, as the node does every hour.

    The exams themselves, their outcomes and their journeys stay.
    """
    wiring = _wired(screen, config)
    with readable_errors(), opened_purge(wiring, operator()) as run:
        done = run(dry_run=dry_run)
    if as_json:
        print_json(vars(done) | {"dry_run": dry_run})
    else:
        megabytes = f"{done.image_bytes / 1e6:.1f}"
        screen.say("would_purge" if dry_run else "purged", **vars(done), megabytes=megabytes)


@click.group()
def archive() -> None:
    """The store that keeps report objects and chosen images for longer: [archive]."""


@archive.command("run")
@config_option
@json_option
@click.pass_obj
def archive_run(screen: Screen, config: Path | None, as_json: bool) -> None:
    """Archive what is not there yet, as the node does every minute."""
    with _opened(screen, config) as run:
        _say(screen, "archived", run(), as_json=as_json)


@archive.command("restore")
@_exams_argument
@_since_option
@config_option
@json_option
@click.pass_obj
def archive_restore(
    screen: Screen,
    exams: tuple[int, ...],
    since: datetime | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Bring back images and reports of EXAMS that were purged here. They stay for as long as those
    of an exam that ends now."""
    with _opened(screen, config) as run:
        _each(screen, "restored_objects", _wanted(run, exams, since), run.restore, as_json=as_json)


@archive.command("verify")
@_exams_argument
@_since_option
@config_option
@json_option
@click.pass_obj
def archive_verify(
    screen: Screen,
    exams: tuple[int, ...],
    since: datetime | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Read all that the archive has of EXAMS and compare it with its checksums."""
    with _opened(screen, config) as run:
        _each(screen, "verified_objects", _wanted(run, exams, since), run.verify, as_json=as_json)


def _wanted(run: Archive, exams: tuple[int, ...], since: datetime | None) -> Sequence[int]:
    if bool(exams) == (since is not None):
        raise click.UsageError("name exams, or --since")
    return exams if since is None else run.exams_since(since.replace(tzinfo=UTC))


def _each(
    screen: Screen,
    key: str,
    exams: Sequence[int],
    step: Callable[[int], Moved],
    *,
    as_json: bool,
) -> None:
    """One exam that fails holds up no other."""
    done, failed = Moved(), dict[int, str]()
    with Progress(disable=as_json) as progress:
        for exam_id in progress.track(exams, description=""):
            try:
                done += step(exam_id)
            except KeyError:
                failed[exam_id] = screen.text("no_exam", exam_id=exam_id)
            except NodeError as error:
                failed[exam_id] = str(error)
    _say(screen, key, done, as_json=as_json, failed=failed)
    if failed:
        raise Failed("\n".join(failed.values()))


def _say(
    screen: Screen, key: str, done: Moved, *, as_json: bool, failed: dict[int, str] | None = None
) -> None:
    if as_json:
        print_json(vars(done) | {"failed": failed or {}})
    else:
        screen.say(key, **vars(done))


@contextmanager
def _opened(screen: Screen, config: Path | None) -> Iterator[Archive]:
    wiring = _wired(screen, config)
    with readable_errors():
        try:
            with opened_archive(wiring, operator()) as run:
                yield run
        except LookupError:
            raise Failed(screen.text("no_archive")) from None


def _wired(screen: Screen, config: Path | None) -> Wiring:
    wiring = Wiring(settings_from(config))
    if not wiring.folders.ledger.is_file():
        raise Failed(screen.text("no_ledger", path=wiring.folders.ledger))
    return wiring
