"""The command group and what every command shares."""

from __future__ import annotations

import importlib

import click

from dicom_node import __version__
from dicom_node.cli.output import (
    LANGUAGES,
    Screen,
    accept_any_text,
    language_of_environment,
)

_MODULES = {
    "demo": "node",
    "serve": "serve",
    "process": "serve",
    "predict": "file",
    "status": "exam",
    "exam": "exam",
    "job": "exam",
    "send": "send",
    "echo": "file",
    "audit": "audit",
    "doctor": "node",
    "backup": "backup",
    "restore": "backup",
    "archive": "housekeeping",
    "purge": "housekeeping",
    "central": "central",
    "report": "report",
}
"""Of each command: where it stands."""


class Commands(click.Group):
    """Loads a command when it is asked for: a process of the node is not to wait for the
    libraries of all others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, for the help."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None when there is none."""
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"dicom_node.cli.{_MODULES[cmd_name]}_commands")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lang", type=click.Choice(LANGUAGES), help="Language of messages (default: LANG).")
@click.version_option(__version__, prog_name="dicom-node")
@click.pass_context
def main(context: click.Context, lang: str | None) -> None:
    """Bone-age DICOM node: hand radiographs in by C-STORE, Structured Reports back in the PACS.

    For research use only; not for diagnosis.
    """
    accept_any_text()
    context.obj = Screen(lang or language_of_environment())
