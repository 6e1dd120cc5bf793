"""A ledger's copy while it is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from dicom_node.domain.errors import Fault, Permanent, Transient


def copy_ledger(source: Path, target: Path) -> None:
    """One consistent state of a ledger that others write meanwhile (SQLite's online backup), on
    stable storage, without side files.

    Raises ``Transient`` (STORAGE_UNAVAILABLE) when one of both cannot be read or written.
    """
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)
            there.execute("PRAGMA journal_mode = DELETE")
        descriptor = os.open(target, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (sqlite3.Error, OSError) as error:
        raise Transient(
            Fault.STORAGE_UNAVAILABLE, f"the ledger {source} cannot be copied to {target}: {error}"
        ) from None


def check_ledger_file(path: Path) -> None:
    """Raises ``Permanent`` (STORAGE_UNAVAILABLE) when a ledger file is damaged."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            [result] = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        result = str(error)
    if result != "ok":
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE,
            f"the ledger {path} is damaged ({result}): take another backup",
        )
