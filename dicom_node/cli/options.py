"""Options and settings that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.output import Failed, Screen
from dicom_node.domain.errors import NodeError
from dicom_node.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from dicom_node.adapters.ledger import OperatorLedger
    from dicom_node.adapters.scu.association import Peer

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_PEER = re.compile(r"(?P<host>\[[^]]+\]|[^:/]+):(?P<port>\d{1,5})/(?P<ae_title>[^\\]{1,16})")

config_option: Decorator = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="DICOM_NODE_CONFIG",
    help="Configuration file (default: the embedded settings).",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON and nothing else."
)
row_id = click.IntRange(1, 2**63 - 1)
"""Numbers that the ledger's database can hold."""


class PeerType(click.ParamType["Peer"]):
    """``host:port/AET``."""

    name = "host:port/AET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Peer:
        """Parse the text; anything else is a usage error."""
        from dicom_node.adapters.scu.association import Peer

        if isinstance(value, Peer):
            return value
        found = _PEER.fullmatch(value)
        if found is None or not 0 < int(found["port"]) < 65536:
            screen = (ctx.find_object(Screen) if ctx else None) or Screen("en")
            self.fail(screen.text("no_peer", value=value), param, ctx)
        return Peer(
            host=found["host"].strip("[]"), port=int(found["port"]), ae_title=found["ae_title"]
        )


def limit_option(default: int) -> Decorator:
    """How many rows a list shows."""
    return click.option(
        "--limit", default=default, show_default=True, type=row_id, help="Show at most this many."
    )


def settings_from(config: Path | None) -> Settings:
    """Read the configuration; a wrong one ends the command with exit code 2."""
    try:
        return load_settings(config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def files_from(screen: Screen, paths: Sequence[Path]) -> list[Path]:
    """The named files and those below the named folders; a clear failure when there are none."""
    from dicom_node.offline import find_files

    files = find_files(paths)
    if not files:
        raise Failed(screen.text("no_files", paths=", ".join(map(str, paths))))
    return files


@contextmanager
def operator_ledger(screen: Screen, settings: Settings) -> Iterator[OperatorLedger]:
    """The ledger of a node on this machine; a clear failure when there is none yet."""
    from dicom_node.adapters.ledger import OperatorLedger
    from dicom_node.wiring import Wiring

    wiring = Wiring(settings)
    if not wiring.folders.ledger.is_file():
        raise Failed(screen.text("no_ledger", path=wiring.folders.ledger))
    ledger = OperatorLedger(wiring.folders.ledger, wiring.clock)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Errors that the node raises on purpose end the command with one clear line."""
    try:
        yield
    except NodeError as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{error.filename or 'the system'}: {error.strerror}") from None
