"""README and ARCHITECTURE speak of this code: paths, names and tables agree with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dicom_node.cli import main
from dicom_node.domain.job import TRANSITIONS
from dicom_node.domain.receipt import StoreStatus
from dicom_node.settings import Settings
from inference.bundle import find_bundle, load_bundle

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "docs" / "README.md"]
RECORDS = [ROOT / "CHANGELOG.md", *DECISIONS]
"""What was true when it was written: only its links are checked."""
OURS = re.compile(
    r"(dicom_node|inference|sr_templates|config|docs|tests|\.ci)/.*"
    r"|requirements.*|pyproject.*|Makefile|.*\.(py|md)"
)
SHOWN = re.compile(r"`([^`\s]+)`")
LINKED = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def named_paths(text: str) -> Iterator[tuple[str, str]]:
    """(path, test name or "") of all in backticks that looks like a path of the repository."""
    for token in SHOWN.findall(text):
        path, _, name = token.partition("::")
        if OURS.fullmatch(path):
            yield path, name


def table(page: str, header: str) -> list[list[str]]:
    """Rows of the table that begins with this header line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = text.split(f"\n{header}\n", 1)[1].splitlines()[1:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def leaf_commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaf_commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield prefix + name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_path_and_test_that_is_named_exists(page: Path) -> None:
    for path, name in named_paths(page.read_text(encoding="utf-8")):
        found = list(ROOT.glob(path)) if "*" in path else [ROOT / path]
        assert found, f"{path} matches nothing"
        assert all(file.exists() for file in found), path
        if name:
            assert f"\ndef {name}(" in found[0].read_text(encoding="utf-8"), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES + RECORDS, ids=page_id)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in LINKED.findall(page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_a_path_that_does_not_exist_would_be_noticed() -> None:
    wrong = ["dicom_node/gone.py", "misspelt/exam.py", "GONE.md", "requirements-gone.txt"]
    elsewhere = ["run/node.json", "node.toml", "/livez"]
    text = " ".join(f"`{path}`" for path in wrong + elsewhere)
    assert [path for path, _ in named_paths(text)] == wrong
    assert not any((ROOT / path).exists() for path in wrong)


def test_every_module_stands_in_the_map_once() -> None:
    in_map = [row[0].strip("`") for row in table("ARCHITECTURE.md", "| module | one line |")]
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dicom_node").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(in_map) == len(set(in_map))
    assert set(in_map) == modules


@pytest.mark.parametrize("package", ["inference", "sr_templates"])
def test_every_module_of_the_other_packages_stands_on_the_page(package: str) -> None:
    shown = set(SHOWN.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")))
    for module in (ROOT / package).rglob("*.py"):
        path = module.relative_to(ROOT)
        names = {path.as_posix(), f"{path.parent.as_posix()}/"}
        assert path.name == "__init__.py" or names & shown, f"{path} is missing"


def test_the_life_of_a_job_is_the_table_of_the_code() -> None:
    documented = {
        (row[0], row[1]): row[2] for row in table("ARCHITECTURE.md", "| from | step | to |")
    }
    assert documented == {(str(a), str(step)): str(b) for (a, step), b in TRANSITIONS.items()}


def test_every_command_stands_in_the_readme() -> None:
    rows = [
        re.sub(r" [\[A-Z].*", "", row[0].strip("`"))
        for row in table("README.md", "| command | does |")
    ]
    assert sorted(rows) == sorted(f"dicom-node {name}" for name in leaf_commands(main))


def test_every_answer_to_a_c_store_stands_in_the_readme() -> None:
    rows = table("README.md", "| the node's answer to a C-STORE | means | the sender |")
    assert {row[0].strip("`") for row in rows} == {f"0x{status:04X}" for status in StoreStatus}


def test_the_readmes_configuration_loads() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    settings = Settings(**tomllib.loads(block))
    assert [item.destinations for item in settings.institutions] == [("hospital-a-pacs",)]


def test_the_readme_states_the_error_of_the_model_that_it_links() -> None:
    bundle = load_bundle(find_bundle(ROOT / "config" / "models", Settings().inference.model))
    evaluation = bundle.metadata["evaluation"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    months, images = f"{evaluation['mae_months']:.1f}", evaluation["images"]
    assert f"mean absolute error of {months} months on {images} radiographs" in text
    assert f"{page_id(bundle.folder)}/docs/README.md" in text


def test_every_document_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in LINKED.findall(index)}
    assert {*(ROOT / "docs").glob("*.md"), *DECISIONS} - {ROOT / "docs" / "README.md"} <= linked


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    titles = [path.read_text(encoding="utf-8").splitlines()[0] for path in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))
    assert all(
        title.startswith(f"# {number}. ") for number, title in zip(numbers, titles, strict=True)
    )
