"""The image's recipe: what it copies exists, what it runs is pinned, who runs it is nobody."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dicom_node.settings import NodeSettings

ROOT = Path(__file__).resolve().parents[2]
IGNORED = (".dockerignore", ".containerignore")


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest of it) in order, continued lines joined."""
    text = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def last(instruction: str) -> str:
    return [rest for name, rest in instructions() if name == instruction][-1]


def copied() -> list[str]:
    """Sources in the repository."""
    sources = []
    for name, rest in instructions():
        if name == "COPY" and "--from=" not in rest:
            sources += shlex.split(rest)[:-1]
    return sources


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    begin = max(at for at, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


def test_all_that_is_copied_exists_and_is_let_through_to_the_builder() -> None:
    assert all((ROOT / source).exists() for source in copied())
    for name in IGNORED:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert "*" in lines, "everything else stays out"
        assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_every_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]
    tops = ("config", "dicom_node", "inference", "sr_templates")
    inits = [init for top in tops for init in (ROOT / top).rglob("__init__.py")]
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in inits}
    assert set(packages) == found | {"config"}
    assert {package.split(".")[0] for package in packages} <= set(copied())


def test_dependencies_are_installed_by_their_hashes() -> None:
    commands = [json.loads(rest) for name, rest in instructions() if name == "RUN"]
    locked, ours = [words for words in commands if words[0].endswith("/pip") and "install" in words]
    assert locked[-3:] == ["--require-hashes", "-r", "requirements.lock"]
    assert {"--no-deps", "--no-build-isolation", "."} <= set(ours)


def test_a_user_without_rights_and_without_a_shell_runs_it() -> None:
    user, group = map(int, last("USER").split(":"))
    assert user >= 1000
    assert group >= 1000
    assert not [rest for name, rest in final_stage() if name == "RUN"], "nothing runs as root"
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        command = json.loads(last(name)[last(name).index("[") :])
        assert not {"sh", "bash", "/bin/sh", "-l"} & set(command)


@pytest.mark.parametrize("name", ["RUN", "ENTRYPOINT"])
def test_no_instruction_needs_a_shell(name: str) -> None:
    assert all(isinstance(json.loads(rest), list) for n, rest in instructions() if n == name)


def test_ports_and_data_folder_are_those_of_the_defaults() -> None:
    node = NodeSettings()
    assert last("EXPOSE").split() == [str(node.port), "2762", str(node.metrics_port)]
    assert json.loads(last("VOLUME")) == ["/data"]
    assert "DICOM_NODE_NODE__DATA_DIR=/data" in last("ENV")
    assert f":{node.metrics_port}/readyz" in last("HEALTHCHECK")
    assert "MPLCONFIGDIR=/tmp/matplotlib" in last("ENV")
    assert last("STOPSIGNAL") == "SIGTERM"
