"""How commands speak: rich tables for people, JSON for programs, one language at a time."""

from __future__ import annotations

import io
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dicom_node.adapters.wording import explain

LANGUAGES = ("en", "pt-BR")
_FILE_COLUMNS = 500
"""Width of tables that do not go to a terminal: nothing is folded, so that one can search them."""


class Screen:
    """Standard output in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.console = Console(highlight=False)

    def text(self, key: str, **values: object) -> str:
        """A message of the catalogue with its placeholders filled."""
        return _catalogue(self.language)[key].format(**values)

    def say(self, key: str, **values: object) -> None:
        """Print a message."""
        self.console.print(self.text(key, **values), markup=False, soft_wrap=True)

    def number(self, value: float, form: str) -> str:
        """A number with the decimal separator of the language; ``form`` as ``.1f``."""
        plain = format(value, form)
        return plain.replace(".", ",") if self.language == "pt-BR" else plain

    def explain(self, code: str) -> str:
        """A reason, note or fault code in plain words; faults have only their code."""
        return explain(code, self.language)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print rows under the catalogue's column headings; says so when there are none."""
        table = Table(title=self.text(title), title_justify="left")
        for column in columns:
            table.add_column(self.text(column), overflow="fold")
        for row in rows:
            table.add_row(*[Text("" if value is None else str(value)) for value in row])
        if table.row_count:
            to_terminal = self.console.is_terminal
            (self.console if to_terminal else Console(width=_FILE_COLUMNS)).print(table)
        else:
            self.console.print(f"{self.text(title)}: {self.text('none')}")


class Failed(click.ClickException):
    """Ends a command with exit code 1: what happened, to what, what to do next."""

    exit_code = 1


def print_json(value: Any) -> None:
    """One JSON document on one line of standard output; times as in ISO 8601."""
    click.echo(json.dumps(value, default=_json_value))


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def accept_any_text() -> None:
    """Escape what the encoding of standard output lacks (accents, odd file names) instead of
    failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def language_of_environment() -> str:
    """``pt-BR`` when LANG (or LC_ALL, LC_MESSAGES) asks for Portuguese, else English."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "pt-BR" if value.startswith("pt") else "en"
    return "en"


def months_in_words(months: float | None, screen: Screen) -> str:
    """``10 y 6 mo (126.0)``; empty without a value."""
    if months is None:
        return ""
    years, rest = divmod(round(months), 12)
    return screen.text("years_months", years=years, months=rest, total=screen.number(months, ".1f"))


@cache
def _catalogue(language: str) -> dict[str, str]:
    path = Path(__file__).parent / "text" / f"{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))
