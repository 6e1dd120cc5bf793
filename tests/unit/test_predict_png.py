"""predict: a file that fails does not stop the others, and a wrong setting is no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.cli import main
from tests.builders.radiographs import radiograph, radiograph_files

TYPO = {"DICOM_NODE_INFERENCE__REFERENCE": "typo"}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two radiographs; no report can repeat the first one's patient name."""
    paths = radiograph_files(tmp_path / "files", 2)
    radiograph(0, PatientName="ZZ\tCANARY").save_as(paths[0], enforce_file_format=True)
    return paths


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def test_a_picture_that_cannot_be_drawn_fails_that_file_and_no_other(
    files: list[Path], tmp_path: Path
) -> None:
    done = run("predict", *files, "--json", "--png", tmp_path / "png")
    failed, fine = map(json.loads, done.stdout.splitlines())
    assert done.exit_code == 1
    assert set(failed) == {"path", "outcome", "reason", "error"}
    assert (failed["path"], failed["outcome"]) == (str(files[0]), "failed")
    assert "PatientName" in failed["error"]
    assert (fine["path"], fine["outcome"]) == (str(files[1]), "assessed")
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["hand-0001.png"]
    assert "CANARY" not in done.output


def test_the_line_in_words_names_the_file_that_failed(files: list[Path], tmp_path: Path) -> None:
    done = run("--lang", "en", "predict", *files, "--png", tmp_path / "png")
    failed, fine = (line for line in done.stdout.splitlines() if not line.startswith("  Note: "))
    assert done.exit_code == 1
    assert failed.startswith(f"{files[0]}: failed: ")
    assert fine.startswith(f"{files[1]}: bone age ")


def test_an_unknown_reference_table_is_named_by_predict(files: list[Path]) -> None:
    done = run("predict", files[1], "--json", env=TYPO)
    assert done.exit_code == 1
    assert "greulich-pyle-v-vi" in json.loads(done.stdout)["error"]


def test_an_unknown_reference_table_is_named_by_the_doctor(tmp_path: Path) -> None:
    done = run("doctor", "--json", env=TYPO | {"DICOM_NODE_NODE__DATA_DIR": str(tmp_path)})
    checks = {check["name"]: check for check in json.loads(done.stdout.splitlines()[0])}
    assert done.exit_code == 1
    assert checks["reference table"]["status"] == "failed"
    assert "greulich-pyle-v-vi" in checks["reference table"]["found"]
