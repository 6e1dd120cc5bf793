"""Brings the central database to the schema of this code, once, however many start together."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text

from dicom_node.adapters.central.database import OWNER_SECONDS, CentralDatabase
from dicom_node.domain.errors import Fault, Permanent

_MIGRATIONS = Path(__file__).parent / "migrations"
_TURN = 4_207_113
"""Key of the advisory lock at which migrations take turns."""
MONTHS_AHEAD = 3
"""Partitions that are made ahead of time."""


def migrate(url: str, *, password_file: Path | None = None) -> str:
    """Make or upgrade the central schema and the partitions of the coming months, in one
    transaction, as the owner of the database; return its revision. ``password_file``: as libpq
    reads it.

    Raises ``Transient`` (CENTRAL_UNAVAILABLE) when the database does not answer and ``Permanent``
    (CENTRAL_REFUSED) when it refuses or a newer version made its schema.
    """
    database = CentralDatabase(url, password_file, seconds=OWNER_SECONDS)
    with database.transaction() as connection:
        take_turn(connection)
        _refuse_open_schema(connection)
        revision = _upgrade(connection)
        connection.execute(text("SELECT make_coming_partitions(:m)"), {"m": MONTHS_AHEAD})
        return revision


def take_turn(connection: Connection, until_end_of: str = "transaction") -> None:
    """Wait until nobody else changes the schema, and keep others waiting until the end of the
    ``transaction`` or the ``session``."""
    kind = {"transaction": "_xact", "session": ""}[until_end_of]
    connection.exec_driver_sql(f"SELECT pg_advisory{kind}_lock({_TURN})")


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema, None when there is none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """The revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _refuse_open_schema(connection: Connection) -> None:
    """Functions run as the owner must find no function that somebody else made (CVE-2018-1058)."""
    everybody = select(func.has_schema_privilege("public", "public", "CREATE"))
    if connection.execute(everybody).scalar_one():
        raise Permanent(
            Fault.CENTRAL_REFUSED,
            "everybody may create objects in the schema public of the central database, as before "
            "PostgreSQL 15: run REVOKE CREATE ON SCHEMA public FROM PUBLIC as its owner",
        )


def _upgrade(connection: Connection) -> str:
    config, head = _config(), head_revision()
    current = current_revision(connection)
    if current != head:
        known = {item.revision for item in ScriptDirectory.from_config(config).walk_revisions()}
        if current not in {None, *known}:
            raise Permanent(
                Fault.CENTRAL_REFUSED,
                f"the central database is of a newer version (revision {current}): update this "
                "node",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
