"""Device and precision lead to an engine, or to an error that names the key."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("onnx", reason="needs the train extra")

from inference.bundle import Bundle  # noqa: E402
from inference.engines.choice import (  # noqa: E402
    DeviceChoice,
    PrecisionChoice,
    allowed_precision,
    engine_for,
)
from inference.engines.engine import Engine, EngineEvent  # noqa: E402
from inference.engines.onnx import OnnxEngine  # noqa: E402
from inference.prediction import EngineFailed  # noqa: E402
from tests.builders.models import noise_images, small_bundle  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """fp16 was found within half a month, bf16 was not."""
    measured = {"precision_months_apart": {"fp16": 0.17, "bf16": 1.11}}
    return small_bundle(tmp_path_factory.mktemp("bundle"), measured)


@pytest.fixture
def events() -> list[EngineEvent]:
    return []


def chosen(bundle: Bundle, events: list[EngineEvent], device: DeviceChoice) -> Engine:
    return engine_for(bundle, device=device, precision="auto", batch_max=4, on_event=events.append)


@pytest.mark.parametrize(("wanted", "runs"), [("auto", "fp32"), ("fp32", "fp32"), ("fp16", "fp16")])
def test_a_precision_that_the_export_found_close_is_allowed(
    bundle: Bundle, wanted: PrecisionChoice, runs: str
) -> None:
    assert allowed_precision(bundle, wanted) == runs


def test_a_precision_that_moves_results_too_far_is_refused_by_its_key(bundle: Bundle) -> None:
    with pytest.raises(EngineFailed, match=r"inference\.precision = bf16 moves .* 1\.11 months"):
        allowed_precision(bundle, "bf16")


def test_a_precision_that_was_never_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"was not measured with small 1\.0\.0"):
        allowed_precision(small_bundle(tmp_path), "fp16")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_without_a_gpu_the_cpu_gives_the_results(
    bundle: Bundle, events: list[EngineEvent], device: DeviceChoice
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    engine = chosen(bundle, events, device)
    images, male = noise_images(4)
    found, expected = engine.run(images, male), OnnxEngine(bundle).run(images, male)
    assert engine.device == "cpu"
    assert np.array_equal(found.mean_months, expected.mean_months)
    wanted = [EngineEvent.DEVICE_LOST, EngineEvent.CPU_BATCH]
    assert events == (wanted if device == "cuda" else [])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_engine_of_the_node_remembers(
    bundle: Bundle, events: list[EngineEvent], device: DeviceChoice
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    engine = chosen(bundle, events, device)
    images, male = noise_images(3)
    engine.run(images, male)
    engine.run(images, male)
    assert events == [EngineEvent.DUPLICATE] * 3


def test_a_gpu_gives_the_results_of_the_cpu(bundle: Bundle, events: list[EngineEvent]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    engine = chosen(bundle, events, "cuda")
    images, male = noise_images(8)
    found, expected = engine.run(images, male), OnnxEngine(bundle).run(images, male)
    assert (engine.device, events) == ("cuda", [])
    np.testing.assert_allclose(found.mean_months, expected.mean_months, atol=0.1)


def test_cuda_without_torch_names_what_to_install(
    bundle: Bundle, events: list[EngineEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "inference.engines.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineFailed, match=r"needs torch: pip install"):
        chosen(bundle, events, "cuda")
