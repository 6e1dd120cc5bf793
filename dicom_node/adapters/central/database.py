"""Connections to PostgreSQL, and what its errors mean."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dicom_node.domain.errors import Fault, Permanent, Transient

_CONNECT_SECONDS = 10
NODE_SECONDS = 40
"""For a node's transaction: shorter than the time that its delivery process has to stop."""
OWNER_SECONDS = 3600
"""For what the owner and reports do."""
_GRACE_SECONDS = 5
"""So much later the client hangs up by itself."""


class CentralDatabase:
    """A connection for each transaction: whoever answers at the address next time may be another
    server.

    ``url``: ``postgresql://ROLE@HOST/DATABASE``, with libpq's parameters, sslmode among them.
    ``password_file``: as libpq reads it (passfile); None where the role needs no password or the
    certificate is enough. ``seconds``: how long a connection may live; the server then ends the
    statement, and a server that does not even do that is hung up on. It also forgets a client that
    went away within a transaction, which would keep its locks.
    """

    def __init__(self, url: str, password_file: Path | None = None, *, seconds: int) -> None:
        passfile = {"passfile": str(password_file)} if password_file else {}
        self._limit = seconds + _GRACE_SECONDS
        self._engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg2"),
            poolclass=NullPool,
            executemany_mode="values_plus_batch",  # not a round trip for each row
            hide_parameters=True,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "options": f"-c statement_timeout={seconds}s "
                f"-c idle_in_transaction_session_timeout={seconds}s -c timezone=UTC",
                **passfile,
            },
        )
        event.listen(self._engine, "connect", self._begin_limit, insert=True)
        event.listen(self._engine, "close", _end_limit)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, which the end of the block commits. Raises ``Transient``
        (CENTRAL_UNAVAILABLE, CENTRAL_FULL) and ``Permanent`` (CENTRAL_REFUSED, RECORD_REFUSED)."""
        with self.connection() as connection, connection.begin():
            yield connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection; raises as :meth:`transaction`."""
        begun = time.monotonic()
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _in_our_words(error, late=time.monotonic() - begun >= self._limit) from None

    def _begin_limit(self, connection: Any, record: Any) -> None:
        """Libpq has no limit of its own once it is connected: it waits for ever for a server that
        is stopped, or for a line that swallows everything."""
        line = socket.socket(fileno=os.dup(connection.fileno()))
        timer = threading.Timer(self._limit, _hang_up, (line,))
        timer.daemon = True
        timer.start()
        record.info["limit"] = timer, line


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _end_limit(_connection: Any, record: Any) -> None:
    timer, line = record.info.pop("limit")
    timer.cancel()
    line.close()


def _in_our_words(error: DBAPIError, *, late: bool) -> Transient | Permanent:
    """What the database's error means for the caller. Where a statement failed its text may hold
    row values: only its SQLSTATE and class are said."""
    state = getattr(error.orig, "pgcode", None) or ""
    if not state:
        said = (str(error.orig).strip().splitlines() or ["no answer"])[0]
        if late:
            said = "it took too long and was hung up on"
        return Transient(Fault.CENTRAL_UNAVAILABLE, f"the central database does not answer: {said}")
    what = f"the central database {{}} ({type(error.orig).__name__}, SQLSTATE {state}){{}}".format
    for states, kind, fault, happened, next_step in _MEANINGS:
        if state.startswith(states):
            return kind(fault, what(happened, next_step))
    return Permanent(
        Fault.CENTRAL_REFUSED,
        what(
            "refuses",
            ": check the role's rights and that `dicom-node central migrate` has run",
        ),
    )


_MEANINGS: tuple[tuple[tuple[str, ...], type[Transient | Permanent], Fault, str, str], ...] = (
    (
        ("53100",),
        Transient,
        Fault.CENTRAL_FULL,
        "has no room on its disk",
        ": its owner has to make some",
    ),
    (
        ("57014",),
        Transient,
        Fault.CENTRAL_UNAVAILABLE,
        "took too long for a statement",
        ": it is busy, or waits for somebody else's transaction",
    ),
    (
        # connection, read-only transaction, serialization and deadlock, resources, locks, operator
        # intervention, system errors
        ("08", "25", "40", "53", "55", "57", "58"),
        Transient,
        Fault.CENTRAL_UNAVAILABLE,
        "does not answer",
        "",
    ),
    (
        ("NM001",),
        Permanent,
        Fault.RECORD_REFUSED,
        "refuses an exam of a month that is detached",
        ": where its owner attaches it again (`dicom-node central attach`), `dicom-node central "
        "replay` sends the exam",
    ),
    # data exception, integrity constraint violation
    (("22", "23"), Permanent, Fault.RECORD_REFUSED, "refuses a record's values", ""),
)
"""Beginnings of SQLSTATEs, NM001 the schema's own, with what is raised and said; the first that
fits."""
