"""Every setting, metric, event and reason code stands in its document, and nothing else does."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dicom_node.domain.assessment import Note
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Receipt
from dicom_node.domain.job import Stage
from dicom_node.logs import EVENTS, FIELDS
from dicom_node.metric_table import METRICS
from dicom_node.scp.guard import Cut
from dicom_node.scp.policy import Answer
from dicom_node.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(document: str, heading: str) -> dict[str, dict[str, str]]:
    """The table below a heading: first cell (without backticks) to column name to cell."""
    text = (DOCS / document).read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    names = [row[0].strip("`") for row in rows]
    assert len(names) == len(set(names)), f"{document}: a row of {heading} stands twice"
    return {
        name: dict(zip(header, row, strict=True)) for name, row in zip(names, rows, strict=True)
    }


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def settings_fields() -> dict[str, FieldInfo]:
    """Dotted key to field; lists of sections are written ``institutions[].id``."""
    fields: dict[str, FieldInfo] = {}
    for section, field in Settings.model_fields.items():
        models: tuple[type[BaseModel], ...] = get_args(field.annotation)
        prefix, model = (f"{section}[]", models[0]) if models else (section, field.annotation)
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        fields |= {f"{prefix}.{name}": item for name, item in model.model_fields.items()}
    return fields


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {key: row["default"] for key, row in table("configuration.md", "Keys").items()}
    defaults = {key: _default(field) for key, field in settings_fields().items()}
    defaults["institutions[].language"] = "`node.language`"
    assert documented == defaults


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{json.dumps(field.default, default=str)}`"


def test_every_setting_has_a_meaning_and_what_is_allowed() -> None:
    assert all(
        row["allowed"] and row["meaning"] for row in table("configuration.md", "Keys").values()
    )


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    documented = {
        name: (row["type"], codes(row["labels"]))
        for name, row in table("metrics.md", "Table").items()
    }
    assert documented == {metric.name: (metric.kind, list(metric.labels)) for metric in METRICS}


def test_the_example_expressions_ask_for_metrics_that_exist() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    known = {metric.name for metric in METRICS}
    known |= {f"{m.name}_{end}" for m in METRICS for end in ("bucket", "count", "sum") if m.buckets}
    assert set(re.findall(r"dicom_node_\w+", text)) <= known


def test_every_event_is_documented_with_its_level_and_fields() -> None:
    documented = {
        name: (row["level"], tuple(codes(row["fields"])), row["meaning"])
        for name, row in table("events.md", "Events").items()
    }
    assert documented == {
        name: (event.level, event.fields, event.meaning) for name, event in EVENTS.items()
    }


def test_every_field_of_the_log_is_documented() -> None:
    documented = {name: row["meaning"] for name, row in table("events.md", "Fields").items()}
    assert documented == dict(FIELDS)


@pytest.mark.parametrize(("field", "kind"), [("stage", Stage), ("receipt", Receipt)])
def test_a_field_that_holds_codes_names_them_all(field: str, kind: type[StrEnum]) -> None:
    assert codes(FIELDS[field]) == list(kind)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Reasons", Reason),
        ("Notes", Note),
        ("Faults", Fault),
        ("Association answers", Answer),
        ("Cut connections", Cut),
    ],
)
def test_every_code_is_explained_with_what_to_do(heading: str, kind: type[StrEnum]) -> None:
    rows = table("reasons.md", heading)
    assert set(rows) == set(kind)
    assert all(row["meaning"] and row["what to do"] for row in rows.values())


def test_links_between_the_documents_lead_somewhere() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    for name in ("configuration.md", "metrics.md", "events.md", "reasons.md"):
        for target, anchor in re.findall(r"\]\((\w+\.md)#([\w-]+)\)", texts[name]):
            headings = re.findall(r"^## (.+)$", texts[target], flags=re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_commands_that_the_documents_name_exist() -> None:
    from dicom_node.cli import main

    for name in ("configuration.md", "metrics.md", "events.md", "reasons.md"):
        text = (DOCS / name).read_text(encoding="utf-8")
        for words in re.findall(r"`dicom-node ([a-z ]+)", text):
            command: click.Command | None = main
            for word in words.split():
                assert isinstance(command, click.Group), f"{name}: dicom-node {words}"
                command = command.commands.get(word)
                assert command is not None, f"{name}: dicom-node {words}"
