"""onnxruntime keeps its telemetry to itself: no identifier, no events on disk, nobody called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = """
import os, sys
{before}
from pathlib import Path
import inference
{after}
from inference.bundle import load_bundle
from inference.engines.onnx import OnnxEngine
OnnxEngine(load_bundle(Path(sys.argv[1])))
"""
BUNDLE = next((Path(__file__).resolve().parents[2] / "config" / "models").glob("boneage-lite0-*"))
_SILENCING = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}


def left_by(home: Path, *, before: str = "", after: str = "") -> list[Path]:
    """Files that a fresh process leaves in its home folder when it loads the network."""
    kept = {name: value for name, value in os.environ.items() if name not in _SILENCING}
    subprocess.run(
        [sys.executable, "-c", SESSION.format(before=before, after=after), str(BUNDLE)],
        env={**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        check=True,
        timeout=120,
    )
    return [path for path in home.rglob("*") if path.is_file()]


def test_loading_the_network_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    assert left_by(tmp_path) == []


def test_an_environment_that_asks_for_telemetry_is_not_obeyed(tmp_path: Path) -> None:
    assert left_by(tmp_path, before="os.environ['ORT_DISABLE_TELEMETRY'] = '0'") == []


def test_without_the_switch_there_would_be_a_trace(tmp_path: Path) -> None:
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29):
        pytest.skip("onnxruntime before 1.29 has no telemetry on Linux")
    assert left_by(tmp_path, after="del os.environ['ORT_DISABLE_TELEMETRY']")
