"""A batch that does not fit the GPU's memory, at the start or later: every exam gets its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("onnx", reason="needs the train extra")

from inference.bundle import Bundle
from inference.engines.engine import EngineEvent
from inference.engines.torch import TorchEngine, _estimator
from inference.network import BoneAgeEstimator
from inference.prediction import NetworkOutput
from tests.fakes.gpu import (
    Exams,
    Fault,
    Machine,
    assert_results,
    no_plan_that_fits,
    no_workspace,
    out_of_memory_above,
    works,
)


@pytest.mark.parametrize(
    ("fault", "batches"),
    [
        (out_of_memory_above(2), [2, 2, 2, 2]),
        (no_workspace, [1] * 8),
        (no_plan_that_fits, [1] * 8),
    ],
    ids=["memory for two", "no workspace beyond one", "no plan beyond one"],
)
def test_a_batch_that_does_not_fit_runs_in_halves(
    machine: Machine, exams: Exams, expected: NetworkOutput, fault: Fault, batches: list[int]
) -> None:
    engine = machine.engine()
    machine.fault = fault
    machine.batches.clear()
    assert_results(engine.run(*exams), expected)
    assert machine.batches == batches
    assert set(machine.events) == {EngineEvent.OUT_OF_MEMORY}
    assert len(machine.events) == len(batches) - 1
    assert engine.device == "cuda"


def test_the_halves_run_when_the_batch_has_left_the_memory(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    held: list[int] = []

    def fault(size: int) -> None:
        held.append(sum(tensor() is not None for tensor in machine.inputs))
        out_of_memory_above(2)(size)

    engine = machine.engine()
    machine.inputs.clear()
    machine.fault = fault
    assert_results(engine.run(*exams), expected)
    assert held == [1] * 7  # the whole, two halves, four quarters: each alone


def test_a_batch_that_is_filled_up_and_does_not_fit_ends_as_single_images(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    machine.sizes = (1, 4)
    engine = machine.engine()
    machine.fault = out_of_memory_above(3)
    machine.batches.clear()
    images, male = exams
    output = engine.run(images[:3], male[:3])
    np.testing.assert_allclose(output.mean_months, expected.mean_months[:3], atol=0.1)
    assert machine.batches == [1, 1, 1]
    assert machine.events == [EngineEvent.OUT_OF_MEMORY] * 2


def test_no_batch_is_filled_up_to_a_size_that_did_not_fit_at_the_start(
    bundle: Bundle, exams: Exams, expected: NetworkOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []

    def estimator(*arguments: Any) -> BoneAgeEstimator:
        made = _estimator(*arguments)

        def meet(_: BoneAgeEstimator, given: tuple[Tensor, ...]) -> None:
            met.append(len(given[0]))
            out_of_memory_above(4)(met[-1])

        made.register_forward_pre_hook(meet)
        return made

    monkeypatch.setattr("inference.engines.torch._estimator", estimator)
    engine = TorchEngine(bundle, "cpu", warm_batches=(1, 2, 8))
    images, male = exams
    output = engine.run(images[:3], male[:3])
    np.testing.assert_allclose(output.mean_months, expected.mean_months[:3], atol=0.1)
    assert met == [1, 2, 8, 3]


def test_an_odd_batch_loses_none_in_its_halves(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    machine.fault = out_of_memory_above(3)
    images, male = exams
    output = engine.run(images[:7], male[:7])
    np.testing.assert_allclose(output.mean_months, expected.mean_months[:7], atol=0.1)


def test_an_image_that_does_not_fit_alone_runs_on_the_cpu_and_the_gpu_is_kept(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    machine.fault = out_of_memory_above(0)
    assert_results(engine.run(*exams), expected)
    assert machine.events.count(EngineEvent.CPU_BATCH) == 8
    assert EngineEvent.DEVICE_LOST not in machine.events
    machine.fault = works
    machine.events.clear()
    assert_results(engine.run(*exams), expected)
    assert machine.events == []
