"""Brings a ledger file to the schema of this code, once, however many processes start together."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dicom_node.adapters.ledger.database import Database
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.durable import sync_folder

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(path: Path) -> str:
    """Make the ledger file or upgrade it, in one transaction; return its revision.

    Processes that start together take turns. Raises ``Permanent`` (STORAGE_UNAVAILABLE) when a
    newer version wrote the file and ``Transient`` (STORAGE_UNAVAILABLE) when the disk fails.
    """
    try:
        _make_private_file(path)
    except OSError as error:
        raise Transient(
            Fault.STORAGE_UNAVAILABLE,
            f"the ledger {path} cannot be made ({error.strerror}): check folder and disk",
        ) from error
    return _upgrade(path)


def check_integrity(path: Path) -> None:
    """Have SQLite read every page of the ledger (``PRAGMA quick_check``), if there is one.

    Raises ``Permanent`` (LEDGER_DAMAGED) when it is damaged and ``Transient``
    (STORAGE_UNAVAILABLE) when it cannot be read.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    database = Database(path)
    try:
        with database.read() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    except Transient as error:
        if not _is_damage(error.__cause__):
            raise
        found = str(getattr(error.__cause__, "orig", ""))
    finally:
        database.close()
    if found != "ok":
        raise Permanent(Fault.LEDGER_DAMAGED, _what_to_do(path, found))


def _is_damage(error: BaseException | None) -> bool:
    """SQLITE_CORRUPT and SQLITE_NOTADB; an error of the disk or a lock is an OperationalError."""
    return type(getattr(error, "orig", None)) is sqlite3.DatabaseError


def _what_to_do(path: Path, found: str) -> str:
    return (
        f"the ledger {path} is damaged ({found.splitlines()[0][:100]}): restore a backup "
        f"(`dicom-node restore`), or move {path.name}, {path.name}-wal and {path.name}-shm "
        "to another folder and start again: every kept object is then entered and reported anew"
    )


def head_revision() -> str:
    """The revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current_revision(path: Path) -> str | None:
    """The revision of a ledger file, None when there is none yet.

    Raises ``Transient`` (STORAGE_UNAVAILABLE) when it cannot be read.
    """
    if not path.is_file():
        return None
    database = Database(path)
    try:
        with database.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()


def _upgrade(path: Path) -> str:
    config, head = _config(), head_revision()
    database = Database(path)
    try:
        with database.write() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            if current != head:
                _refuse_newer(path, current, ScriptDirectory.from_config(config))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    finally:
        database.close()
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _refuse_newer(path: Path, current: str | None, script: ScriptDirectory) -> None:
    if current not in {None, *(revision.revision for revision in script.walk_revisions())}:
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE,
            f"the ledger {path} is of a newer version (revision {current}): "
            "run that version or a later one, or restore an older backup",
        )


def _make_private_file(path: Path) -> None:
    """SQLite gives its side files the mode of the database file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for folder in (path.parent, path.parent.resolve().parent):
        sync_folder(folder)
