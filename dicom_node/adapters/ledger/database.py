"""SQLite as the ledger needs it: WAL, results on stable storage, one writer at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from dicom_node.domain.errors import Fault, Transient

_BUSY_SECONDS = 10.0
_TURN_SECONDS = 0.001
_PRAGMAS = ("journal_mode = WAL", "foreign_keys = ON")
_DURABLE = ("PRAGMA synchronous = FULL", "BEGIN IMMEDIATE")
_QUICK = ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE")
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_STORAGE_ERRORS = (sqlite3.OperationalError, sqlite3.DatabaseError)
"""Locked, full, I/O error / malformed; exactly these: their subclasses are mistakes of ours."""


class Database:
    """One ledger file, for the threads of one process. Another process opens its own.

    Both kinds of transaction raise ``Transient`` (STORAGE_UNAVAILABLE) when SQLite cannot read or
    commit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = _open_engine(path)
        self._durable_writer = self._engine.execution_options(begin=_DURABLE)
        self._quick_writer = self._engine.execution_options(begin=_QUICK)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement.

        It is on stable storage when the block ends. Without ``durable`` it is as atomic and as safe
        from killed processes, but a power cut may undo it until the next durable one: for claims
        and the like, which are then simply made again.
        """
        writer = self._durable_writer if durable else self._quick_writer
        with self._turn(), self._storage_errors(), writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot; it never waits for a writer."""
        with self._storage_errors(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Writers of all threads and processes take turns at a lock file: SQLite's own waiting
        sleeps longer and longer and lets late comers overtake."""
        try:
            lock = os.open(self._path.with_name(f"{self._path.name}.lock"), _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise self._unavailable(str(error.strerror)) from error
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        """Everybody waits for his own time, so that a writer that hangs costs each caller the same
        and nobody waits for ever."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._unavailable("another process holds its lock") from None
            time.sleep(_TURN_SECONDS)

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout:
            raise self._unavailable("all its connections are in use") from None
        except DatabaseError as error:
            if type(error.orig) not in _STORAGE_ERRORS:
                raise
            raise self._unavailable(str(error.orig)) from error

    def _unavailable(self, why: str) -> Transient:
        return Transient(
            Fault.STORAGE_UNAVAILABLE,
            f"the ledger {self._path} failed ({why}): check the disk's free space and health",
        )


def _open_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    for statement in connection.get_execution_options().get("begin", ("BEGIN",)):
        connection.exec_driver_sql(statement)
