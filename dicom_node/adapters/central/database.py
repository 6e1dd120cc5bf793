"""Connections to PostgreSQL, and what its errors mean."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dicom_node.domain.errors import Fault, Permanent, Transient

_CONNECT_SECONDS = 10
_STATEMENT_MS = 60_000


def open_engine(url: str, password_file: Path | None = None) -> Engine:
    """An engine whose connections live as long as a transaction: whoever answers at the address
    next time may be another server.

    ``url``: ``postgresql://ROLE@HOST/DATABASE``, with libpq's parameters, sslmode among them.
    ``password_file``: as libpq reads it (passfile); None where the role needs no password or the
    certificate is enough.
    """
    passfile = {"passfile": str(password_file)} if password_file else {}
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg2"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            "options": f"-c statement_timeout={_STATEMENT_MS} -c timezone=UTC",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            **passfile,
        },
    )


def in_our_words(error: DBAPIError) -> Transient | Permanent:
    """What the database's error means for the caller. Where a statement failed its text may hold
    row values: only its SQLSTATE and class are said."""
    state = getattr(error.orig, "pgcode", None) or ""
    if not state:
        said = (str(error.orig).strip().splitlines() or ["no answer"])[0]
        return Transient(Fault.CENTRAL_UNAVAILABLE, f"the central database does not answer: {said}")
    what = f"{type(error.orig).__name__}, SQLSTATE {state}"
    if state[:2] in _PASSING:
        return Transient(
            Fault.CENTRAL_UNAVAILABLE, f"the central database does not answer ({what})"
        )
    if state[:2] in _WRONG_VALUES:
        return Permanent(
            Fault.RECORD_REFUSED, f"the central database refuses a record's values ({what})"
        )
    return Permanent(
        Fault.CENTRAL_REFUSED,
        f"the central database refuses ({what}): check the role's rights and that "
        "`dicom-node central migrate` has run",
    )


_WRONG_VALUES = frozenset({"22", "23"})
"""SQLSTATE classes: data exception, integrity constraint violation."""
_PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""SQLSTATE classes: connection, read-only transaction, serialization and deadlock, resources,
locks, operator intervention, system errors."""
