"""Options and settings that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.cli.output import Failed
from dicom_node.domain.errors import NodeError
from dicom_node.settings import Settings, SettingsError, load_settings
from dicom_node.wiring import Wiring

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option: Decorator = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="DICOM_NODE_CONFIG",
    help="Configuration file (default: the embedded settings).",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON and nothing else."
)


def settings_from(config: Path | None) -> Settings:
    """Read the configuration; a wrong one ends the command with exit code 2."""
    try:
        return load_settings(config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def operator_ledger(settings: Settings) -> Iterator[OperatorLedger]:
    """The ledger of a node on this machine; a clear failure when there is none yet."""
    wiring = Wiring(settings)
    if not wiring.folders.ledger.is_file():
        raise Failed(
            f"no ledger at {wiring.folders.ledger}: name the node's configuration with --config, "
            "or start the node first"
        )
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
