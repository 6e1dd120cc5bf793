"""backup and restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicom_node.backup import Backup, make_backup, restore_backup
from dicom_node.backup import Progress as Told
from dicom_node.cli.options import config_option, json_option, readable_errors, settings_from
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.folders import Folders
from dicom_node.node import is_running, locked


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@config_option
@json_option
@click.pass_obj
def backup(screen: Screen, folder: Path, config: Path | None, as_json: bool) -> None:
    """Copy ledger, objects, keys, audit trail and configuration to FOLDER, while the node runs.

    A folder that holds an earlier backup is brought up to date.
    """
    settings = settings_from(config)
    if not Folders(root=settings.node.data_dir).ledger.is_file():
        raise Failed(screen.text("no_ledger", path=settings.node.data_dir))
    with readable_errors(), _bar(quiet=as_json) as told:
        made = make_backup(settings, config, folder, told)
    _say(screen, "backup_made", made, as_json=as_json, folder=folder)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@config_option
@json_option
@click.pass_obj
def restore(screen: Screen, folder: Path, config: Path | None, as_json: bool) -> None:
    """Make the configured data folder of a backup in FOLDER. What came after it is not in it."""
    settings = settings_from(config)
    folders = Folders(root=settings.node.data_dir)
    if is_running(folders):
        raise Failed(screen.text("node_runs", path=settings.node.data_dir))
    with readable_errors(), locked(folders), _bar(quiet=as_json) as told:
        made = restore_backup(folder, settings.node.data_dir, told)
    _say(screen, "restored", made, as_json=as_json, folder=settings.node.data_dir)


def _say(screen: Screen, key: str, made: Backup, *, as_json: bool, folder: Path) -> None:
    if as_json:
        print_json(vars(made))
    else:
        screen.say(
            key,
            folder=folder,
            objects=made.objects,
            copied=made.copied,
            made_at=made.made_at.strftime("%Y-%m-%dT%H:%M:%S"),
        )
    if made.damaged:
        raise Failed(screen.text("objects_damaged", objects=", ".join(made.damaged)))


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Told]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=quiet) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
