"""serve and process: the node itself. What these load, the network waits for."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.options import config_option, readable_errors, settings_from
from dicom_node.processes import Inherited, Role, run_process


@click.command()
@config_option
def serve(config: Path | None) -> None:
    """Run the node until SIGTERM, which drains it. Events go to standard error, one JSON a line."""
    from dicom_node.node import serve as run_node

    settings = settings_from(config)
    with readable_errors():
        run_node(settings, str(config) if config else None)


@click.command(hidden=True)
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name")
@click.argument("handed")
@config_option
def process(role: str, name: str, handed: str, config: Path | None) -> None:
    """One process of the node; the supervisor starts it."""
    descriptors = [int(number) for number in handed.split(",")]
    inherited = Inherited(**dict(zip(Inherited.__dataclass_fields__, descriptors, strict=True)))
    with readable_errors():
        run_process(settings_from(config), Role(role), name, inherited)
