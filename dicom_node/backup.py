"""Backup of a data folder while its node runs, and what a restore makes of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.adapters.ledger.copy import check_ledger_file, copy_ledger
from dicom_node.adapters.ledger.migrate import current_revision
from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.durable import sync_folder
from dicom_node.folders import Folders
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring

MANIFEST = "manifest.json"
_KEPT_FOLDERS = ("keys", "audit")
Progress = Callable[[int, int], None]
"""Called with how many objects are done, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds. ``copied``: objects that were not there yet; ``damaged``: content
    hashes of objects that are missing or have changed."""

    made_at: datetime
    node: str
    region: str
    revision: str
    objects: int
    copied: int = 0
    damaged: tuple[str, ...] = ()


def make_backup(
    settings: Settings, config: Path | None, target: Path, progress: Progress
) -> Backup:
    """Copy ledger, objects, keys, audit trail and configuration to ``target``, where an earlier
    backup is brought up to date: an object that is there is not copied again.

    The node may run. The ledger is copied first: what it names is in the spool, for nothing is
    deleted. The manifest comes last, so that a backup that was interrupted is none. Raises
    ``Transient`` (STORAGE_UNAVAILABLE).
    """
    wiring = Wiring(settings)
    made_at = wiring.clock.now()
    with _disk_errors(target):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / MANIFEST).unlink(missing_ok=True)
        partial = target / "ledger.part"
        partial.unlink(missing_ok=True)
        copy_ledger(wiring.folders.ledger, partial)
        partial.replace(target / "ledger.sqlite")
        contents = _contents(wiring, target / "ledger.sqlite")
        copied, damaged = _copy_objects(
            wiring.spool, DiskSpool(target / "spool"), contents, progress
        )
        shutil.rmtree(target / "audit", ignore_errors=True)  # what was forwarded since is no more
        for name in _KEPT_FOLDERS:
            _copy_tree(wiring.folders.root / name, target / name)
        if config is not None:
            _copy_file(config, target / "node.toml")
        backup = Backup(
            made_at=made_at,
            node=settings.node.name,
            region=settings.node.region,
            revision=current_revision(target / "ledger.sqlite") or "",
            objects=len(contents),
            copied=copied,
            damaged=damaged,
        )
        _leave_manifest(target, backup)
    return backup


def restore_backup(source: Path, data_dir: Path, progress: Progress) -> Backup:
    """Make a data folder of a backup; every object is hashed again.

    Raises ``Permanent`` (STORAGE_UNAVAILABLE) for a folder that is no whole backup, a damaged
    ledger and a data folder that has one, ``Transient`` (STORAGE_UNAVAILABLE) when the disk fails.
    """
    backup, folders = read_manifest(source), Folders(root=data_dir)
    _refuse_ledger(folders)
    check_ledger_file(source / "ledger.sqlite")
    kept, spool = DiskSpool(source / "spool"), DiskSpool(folders.spool)
    with _disk_errors(data_dir):
        contents = sorted(path.stem for path in (source / "spool" / "objects").rglob("*.dcm"))
        copied, damaged = _copy_objects(kept, spool, contents, progress)
        for name in _KEPT_FOLDERS:
            _copy_tree(source / name, data_dir / name)
        partial = folders.ledger.with_suffix(".part")
        _copy_file(source / "ledger.sqlite", partial)
        _refuse_ledger(folders)
        partial.replace(folders.ledger)  # last: with it the folder is a node's
        sync_folder(data_dir)
    return replace(backup, copied=copied, damaged=damaged)


def _refuse_ledger(folders: Folders) -> None:
    """SQLite would replay the log of another ledger into the restored one."""
    left = sorted(folders.root.glob(f"{folders.ledger.name}*"))
    if [path for path in left if not path.name.endswith(".lock")]:
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE,
            f"the data folder {folders.root} has a ledger, or what is left of one: move the folder "
            "away first",
        )


def read_manifest(source: Path) -> Backup:
    """What a backup holds. Raises ``Permanent`` (STORAGE_UNAVAILABLE) when it is not whole."""
    try:
        found: dict[str, Any] = json.loads((source / MANIFEST).read_text())
        made_at = datetime.fromisoformat(found["made_at"])
        return Backup(**found | {"made_at": made_at, "damaged": tuple(found["damaged"])})
    except (OSError, ValueError, TypeError, KeyError):
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE,
            f"{source} holds no whole backup: take another one, or finish it by "
            "`dicom-node backup`",
        ) from None


def _contents(wiring: Wiring, ledger: Path) -> list[str]:
    operator = OperatorLedger(ledger, wiring.clock)
    try:
        return sorted(operator.known_contents())
    finally:
        operator.close()


def _copy_objects(
    source: DiskSpool, target: DiskSpool, contents: list[str], progress: Progress
) -> tuple[int, tuple[str, ...]]:
    """One that is damaged does not hold up the others."""
    copied, damaged = 0, list[str]()
    for done, content_sha256 in enumerate(contents, start=1):
        place = target.place(content_sha256)
        try:
            if not place.is_file():
                _copy_file(source.path(content_sha256), place)
                target.verify(content_sha256)
                copied += 1
        except Permanent:
            place.unlink(missing_ok=True)
            damaged.append(content_sha256)
        progress(done, len(contents))
    return copied, tuple(damaged)


def _copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        place = target / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # it was forwarded or renamed meanwhile
                _copy_file(path, place)


def _copy_file(source: Path, target: Path) -> None:
    """On stable storage under its name, whole or not at all. Raises ``Permanent`` (CORRUPT_SPOOL)
    when the source cannot be read."""
    partial = target.with_name(f"{target.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as there, source.open("rb") as here:
        while chunk := _read(here, source):
            there.write(chunk)
        there.flush()
        os.fsync(there.fileno())
    partial.replace(target)
    sync_folder(target.parent)


def _read(file: BinaryIO, path: Path) -> bytes:
    try:
        return file.read(1 << 20)
    except OSError as error:
        raise Permanent(
            Fault.CORRUPT_SPOOL, f"{path} cannot be read ({error.strerror}): check the disk"
        ) from None


def _leave_manifest(target: Path, backup: Backup) -> None:
    partial = target / "manifest.part"
    values = vars(backup) | {"made_at": backup.made_at.isoformat()}
    partial.write_text(json.dumps(values, indent=1))
    _copy_file(partial, target / MANIFEST)
    partial.unlink()


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Transient(
            Fault.STORAGE_UNAVAILABLE,
            f"{error.filename or place}: {error.strerror}: check disk and rights",
        ) from None
