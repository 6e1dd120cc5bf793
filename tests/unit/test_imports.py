"""Imports point down, each foreign library has one owner, and what is heavy is imported late."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("dicom_node", "inference", "sr_templates")
LINT = Path(sys.executable).with_name("lint-imports")
HEAVY = ("torch", "monai", "highdicom", "matplotlib", "reportlab")

FORBIDDEN = [
    ("layers", "dicom_node/domain/exam.py", "import dicom_node.ports"),
    ("layers", "dicom_node/ports.py", "import dicom_node.stages.accept"),
    ("layers", "dicom_node/stages/accept.py", "import dicom_node.adapters.spool"),
    ("layers", "dicom_node/scp/policy.py", "import dicom_node.adapters.spool"),
    ("layers", "dicom_node/metrics.py", "import dicom_node.logs"),
    ("layers", "dicom_node/unplaced.py", ""),
    ("independent", "inference/decode.py", "import dicom_node.domain.errors"),
    ("strangers", "sr_templates/content.py", "import inference.prediction"),
    ("domain-pure", "dicom_node/stages/screen.py", "import pydicom"),
    ("adapters-apart", "dicom_node/adapters/spool.py", "import dicom_node.adapters.clock"),
    ("owner-network", "dicom_node/worker.py", "import pynetdicom"),
    ("owner-database", "dicom_node/adapters/spool.py", "import sqlalchemy"),
    ("owner-reports", "dicom_node/adapters/reporter.py", "import highdicom"),
    ("owner-schedule", "dicom_node/supervisor.py", "import apscheduler"),
    ("owner-commands", "dicom_node/wiring.py", "import click"),
    ("owner-settings", "dicom_node/headers.py", "import pydantic"),
    ("owner-logs", "dicom_node/worker.py", "import structlog"),
    ("owner-metrics", "dicom_node/health.py", "import prometheus_client"),
    ("owner-torch", "inference/decode.py", "import torch"),
    ("owner-onnx", "inference/predictor.py", "import onnxruntime"),
    ("owner-chart", "sr_templates/picture.py", "import matplotlib"),
    ("owner-archive", "dicom_node/housekeeping.py", "import boto3"),
    ("owner-page", "sr_templates/picture.py", "import reportlab"),
]
"""Contract, file and the import that must break it."""


def contract_ids() -> set[str]:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return {c["id"] for c in tomllib.loads(text)["tool"]["importlinter"]["contracts"]}


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-cache", "--no-logo", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and their contracts."""
    for package in PACKAGES:
        without = shutil.ignore_patterns("__pycache__", "models")
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=without)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def modules_after_import(name: str) -> set[str]:
    """Top-level names of all modules that a fresh interpreter holds after an import."""
    program = (
        f"import sys, json, {name}; print(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_every_contract_is_kept() -> None:
    result = lint(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_every_contract_is_broken_once_below() -> None:
    assert {contract for contract, _, _ in FORBIDDEN} == contract_ids()


@pytest.mark.parametrize(
    ("contract", "file", "line"), FORBIDDEN, ids=[f"{c}: {f}" for c, f, _ in FORBIDDEN]
)
def test_a_forbidden_import_is_found(tree: Path, contract: str, file: str, line: str) -> None:
    assert lint(tree, "--contract", contract).returncode == 0
    with (tree / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    result = lint(tree, "--contract", contract)
    assert result.returncode == 1
    module = file.removesuffix(".py").replace("/", ".")
    assert module.rpartition(".")[2] in result.stdout
    assert "BROKEN" in result.stdout or "unplaced" in file


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_of_a_common_name_is_ours(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert list(spec.submodule_search_locations or []) == [str(REPOSITORY / package)]


@pytest.mark.parametrize(
    "module",
    [
        "dicom_node.cli",
        "dicom_node.settings",
        "dicom_node.worker",
        "dicom_node.supervisor",
        "dicom_node.scp.server",
        "dicom_node.adapters.scu",
        "dicom_node.adapters.ledger",
    ],
)
def test_a_process_that_does_not_infer_or_report_starts_without_the_heavy_libraries(
    module: str,
) -> None:
    assert modules_after_import(module).isdisjoint(HEAVY)


SUPERVISOR = "dicom_node.cli.serve_commands, dicom_node.node"
LATER = "dicom_node.audit, dicom_node.node_health, dicom_node.preparation"
"""What the supervisor loads beside its first process."""
RECEIVER = "dicom_node.cli.serve_commands, dicom_node.processes.receiver"


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (SUPERVISOR, {"sqlalchemy", "alembic", "pydicom", "pynetdicom", "numpy"}),
        (f"{SUPERVISOR}, {LATER}", {"pydicom", "pynetdicom", "numpy", "psycopg2", "onnxruntime"}),
        (RECEIVER, {"alembic", "psycopg2", "onnxruntime", "apscheduler", "boto3"}),
    ],
    ids=["before the first process", "supervisor", "receiver"],
)
def test_the_network_waits_for_no_library_that_it_does_not_need(
    modules: str, absent: set[str]
) -> None:
    assert modules_after_import(modules).isdisjoint(absent | set(HEAVY))


def test_the_cpu_engine_starts_without_torch() -> None:
    assert modules_after_import("inference.predictor").isdisjoint({"torch", "monai"})
    assert modules_after_import("inference.engines.onnx").isdisjoint({"torch", "monai"})


def test_metrics_cost_nothing_until_they_are_activated() -> None:
    assert "prometheus_client" not in modules_after_import("dicom_node.metrics")
