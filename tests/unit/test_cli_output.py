"""The command line's texts: both catalogues agree with each other and with the code; help is whole;
what a table prints is what it was given."""

from __future__ import annotations

import ast
import json
import re
import string
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dicom_node import cli
from dicom_node.adapters.central.reports import QUERIES
from dicom_node.adapters.scu.echo import HINTS, Hint
from dicom_node.cli import main
from dicom_node.cli.output import (
    LANGUAGES,
    Screen,
    language_of_environment,
    months_in_words,
    print_json,
)
from dicom_node.domain.assessment import Determination
from dicom_node.domain.exam import Outcome

FOLDER = Path(cli.__file__).parent
SECTIONS = {name: query for report in QUERIES.values() for name, query in report.items()}
FAMILIES = {
    "report_": list(SECTIONS),
    "determination_": [value.value for value in Determination],
    "send_": ["stored", "warned", "refused", "unanswered"],
    "outcome_": [Outcome.IGNORED.value, Outcome.NOT_ASSESSED.value],
}
"""Keys that the code puts together from an enum's member; an assessed file has another text."""


def catalogue(language: str) -> dict[str, str]:
    path = FOLDER / "text" / f"{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def modules() -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.py"))]


def calls(name: str) -> Iterator[ast.Call]:
    """Every call of a method of that name in the command line's code."""
    for module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == name:
                yield node


def constants(node: ast.AST) -> set[str]:
    """The texts in an expression or a module, docstrings and comments aside."""
    return {
        item.value
        for item in ast.walk(node)
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    }


def spelled_keys(node: ast.expr) -> set[str]:
    """The keys that an argument can be: itself, or its prefix with each member of the family."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        prefix = str(node.values[0].value)
        return {f"{prefix}{member}" for member in FAMILIES[prefix]}
    return set()


def asked_keys() -> set[str]:
    """Keys of every message, table title and column that the code names where it prints."""
    asked: set[str] = set()
    for method in ("text", "say"):
        for call in calls(method):
            asked |= spelled_keys(call.args[0])
    for call in calls("table"):
        asked |= spelled_keys(call.args[0]) | constants(call.args[1])
    return asked


def commands(
    command: click.Command = main, path: str = "dicom-node"
) -> Iterator[tuple[str, click.Command]]:
    """Every command with its name as it is typed."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


def test_the_catalogues_have_the_same_keys() -> None:
    english, *others = (list(catalogue(language)) for language in LANGUAGES)
    assert all(other == english for other in others)


def test_the_catalogues_have_the_same_placeholders() -> None:
    found = [
        {key: placeholders(text) for key, text in catalogue(language).items()}
        for language in LANGUAGES
    ]
    assert all(other == found[0] for other in found)


def test_every_key_that_the_code_asks_for_exists() -> None:
    asked = asked_keys()
    assert len(asked) > 40
    assert asked <= set(catalogue("en"))


def test_every_key_of_the_catalogue_is_used() -> None:
    mentioned = {text for module in modules() for text in constants(module)} | asked_keys()
    mentioned |= {word for query in SECTIONS.values() for word in re.findall(r"\w+", query)}
    assert set(catalogue("en")) <= mentioned


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_hint_but_none_says_what_to_do(language: str) -> None:
    assert all(HINTS[hint][language] for hint in Hint if hint is not Hint.NONE)


def test_every_command_has_help() -> None:
    assert [path for path, command in commands() if not (command.help or "").strip()] == []


def test_every_option_of_a_command_that_people_see_has_help() -> None:
    silent = [
        f"{path} {option.opts[0]}"
        for path, command in commands()
        if not command.hidden
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


def test_cells_are_printed_as_they_are_and_never_read_as_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen("en").table("jobs_title", ("job_id", "detail"), [(1, "see [[destinations]] [/closed]")])
    assert "see [[destinations]] [/closed]" in capsys.readouterr().out


def test_messages_are_printed_as_they_are_and_never_read_as_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen("en").say("model_line", model="[/closed]")
    assert capsys.readouterr().out == "Model: [/closed]\n"


def test_identifiers_stay_whole_in_a_table_that_goes_to_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = [f"2.25.{column}{'0' * 30}" for column in range(4)]
    Screen("en").table("reports", ("kind", "sop_instance_uid", "bytes", "at"), [cells])
    out = capsys.readouterr().out
    assert [cell for cell in cells if cell not in out] == []


def test_a_table_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("pt-BR").table("queues", ("stage",), [])
    assert capsys.readouterr().out == "Filas: nenhum\n"


def test_json_is_one_line_with_times_in_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 3, 1, 12, 0, tzinfo=UTC), "name": "ção", "path": Path("a")})
    out = capsys.readouterr().out
    assert json.loads(out) == {"at": "2026-03-01T12:00:00+00:00", "name": "ção", "path": "a"}
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "pt_BR.UTF-8"}, "pt-BR"),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "pt_PT"}, "pt-BR"),
        ({"LC_ALL": "", "LANG": "pt_BR"}, "pt-BR"),
    ],
)
def test_the_language_follows_the_environment_as_posix_orders_it(
    environment: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert language_of_environment() == language


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "10 y 6 mo (126.0 months)"), ("pt-BR", "10 a 6 m (126,0 meses)")],
)
def test_numbers_have_the_decimal_separator_of_the_language(language: str, words: str) -> None:
    assert months_in_words(126.0, Screen(language)) == words


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant() -> None:
    result = CliRunner().invoke(main, ["serv"])
    assert result.exit_code == 2
    assert "serve" in result.output
