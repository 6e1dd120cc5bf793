"""onnxruntime makes the padding of the networks part of their convolutions: a node of its own would
cost a quarter of the time (docs/adr/0031-padding-that-onnxruntime-folds.md)."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from dicom_node.adapters.predictor import MODELS
from inference.bundle import GATE_ONNX, ONNX, find_bundle, load_bundle

onnx = pytest.importorskip("onnx", reason="needs the train extra")

from inference.training.gate.export import write_onnx  # noqa: E402
from inference.training.gate.network import GateDecision, GateNet  # noqa: E402
from tests.builders.models import small_bundle  # noqa: E402


def operators(network: bytes, folder: Path) -> list[str]:
    """What is left when onnxruntime has made the graph simpler, before it lays it out for a
    processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "simpler.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "simpler.onnx").graph.node]


def check(network: bytes, folder: Path) -> None:
    assert b"Pad" in network
    found = operators(network, folder)
    assert "Conv" in found
    assert "Pad" not in found


@pytest.mark.parametrize("name", [ONNX, GATE_ONNX])
def test_no_padding_is_left_in_the_released_networks(name: str, tmp_path: Path) -> None:
    check(load_bundle(find_bundle(MODELS, "boneage-lite0")).read(name), tmp_path)


def test_no_padding_is_left_in_a_network_that_is_exported_now(tmp_path: Path) -> None:
    check(small_bundle(tmp_path).read(ONNX), tmp_path)


def test_no_padding_is_left_in_a_gate_that_is_exported_now(tmp_path: Path) -> None:
    write_onnx(GateDecision(GateNet(), 0.0).eval(), tmp_path / "gate.onnx", side=128)
    check((tmp_path / "gate.onnx").read_bytes(), tmp_path)
