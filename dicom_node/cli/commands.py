"""The command group and what every command shares."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import cast

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


class _Commands(Mapping[str, click.Command]):
    """Loads a command's module when the command is asked for: a process of the node is not to wait
    for the libraries of all others."""

    def __getitem__(self, name: str) -> click.Command:
        module = importlib.import_module(f"dicom_node.cli.{_MODULES[name]}_commands")
        command: click.Command = getattr(module, name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


@click.group(
    commands=cast(MutableMapping[str, click.Command], _Commands()),  # click adds none to it
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--lang", type=click.Choice(LANGUAGES), help="Language of messages (default: LANG).")
@click.version_option(__version__, prog_name="dicom-node")
@click.pass_context
def main(context: click.Context, lang: str | None) -> None:
    """Bone-age DICOM node: hand radiographs in by C-STORE, Structured Reports back in the PACS.

    For research use only; not for diagnosis.
    """
    accept_any_text()
    context.obj = Screen(lang or language_of_environment())
