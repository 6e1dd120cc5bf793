"""Whatever the GPU does, every exam gets the network's result, and the GPU is used again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("onnx", reason="needs the train extra")

from inference.bundle import ONNX, WEIGHTS, Bundle  # noqa: E402
from inference.engines.engine import Device, Engine, EngineEvent  # noqa: E402
from inference.engines.fallback import (  # noqa: E402
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    FallbackEngine,
)
from inference.engines.onnx import OnnxEngine  # noqa: E402
from inference.engines.torch import TorchEngine, _estimator  # noqa: E402
from inference.network import BoneAgeEstimator  # noqa: E402
from inference.prediction import EngineFailed, NetworkOutput  # noqa: E402
from tests.builders.models import noise_images, small_bundle  # noqa: E402

Fault = Callable[[int], None]
"""Called with the batch's size before the network runs; raises what CUDA would."""


def works(_: int) -> None:
    """No fault."""


def out_of_memory_above(limit: int) -> Fault:
    def fault(size: int) -> None:
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return fault


def illegal_address(_: int) -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def fell_off_the_bus(_: int) -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")


def no_workspace(size: int) -> None:
    if size > 1:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def no_plan_that_fits(size: int) -> None:
    if size > 1:
        raise RuntimeError("GET was unable to find an engine to execute this computation")


class InjectedGpu:
    """The real torch engine on the CPU; ``machine.fault`` strikes inside its network."""

    device: Device = "cuda"

    def __init__(self, machine: Machine) -> None:
        if machine.missing:
            raise EngineFailed("torch finds no CUDA device")
        machine.starts += 1
        self._engine = TorchEngine(machine.bundle, "cpu", warm_batches=machine.sizes)
        network = self._engine._estimator

        def estimator(image: Tensor, male: Tensor) -> tuple[Tensor, ...]:
            machine.inputs.append(weakref.ref(image))
            machine.fault(len(image))
            machine.batches.append(len(image))
            mean, deviation, saliency = network(image, male)
            return mean * machine.factor, deviation, saliency

        self._engine._estimator = estimator  # type: ignore[assignment]
        self.run = self._engine.run


@dataclass
class Machine:
    """A computer whose GPU and clock the test controls."""

    bundle: Bundle
    fault: Fault = works
    missing: bool = False
    sizes: tuple[int, ...] = (1,)
    """Of the batches that run at the start."""
    factor: float = 1.0
    now: float = 1000.0
    starts: int = 0
    batches: list[int] = field(default_factory=list)
    """Sizes that the network ran with on the GPU."""
    inputs: list[weakref.ref[Tensor]] = field(default_factory=list)
    """Of every call of the network, on the GPU, also of those that failed."""
    events: list[EngineEvent] = field(default_factory=list)

    def engine(self) -> FallbackEngine:
        return FallbackEngine(
            lambda: InjectedGpu(self),
            lambda: OnnxEngine(self.bundle),
            on_event=self.events.append,
            monotonic=lambda: self.now,
        )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def machine(bundle: Bundle) -> Machine:
    return Machine(bundle)


@pytest.fixture(scope="module")
def exams() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A batch of 8."""
    return noise_images(8)


@pytest.fixture(scope="module")
def expected(bundle: Bundle, exams: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> NetworkOutput:
    """Their results from an engine that nothing disturbs."""
    output = OnnxEngine(bundle).run(*exams)
    assert np.ptp(output.mean_months) > 20  # a result in another's place would be seen
    return output


def assert_results(found: NetworkOutput, expected: NetworkOutput) -> None:
    """Every exam has its own result, in order."""
    np.testing.assert_allclose(found.mean_months, expected.mean_months, atol=0.1)
    np.testing.assert_allclose(found.sd_months, expected.sd_months, atol=0.1)
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=0.1)


Exams = tuple[NDArray[np.uint8], NDArray[np.float32]]


def test_a_batch_goes_to_a_healthy_gpu_in_one_call(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    machine.batches.clear()
    assert_results(engine.run(*exams), expected)
    assert machine.batches == [8]
    assert (machine.events, engine.device) == ([], "cuda")


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


@pytest.mark.parametrize("fault", [illegal_address, fell_off_the_bus])
def test_a_gpu_that_is_lost_while_it_runs_loses_no_exam(
    machine: Machine, exams: Exams, expected: NetworkOutput, fault: Fault
) -> None:
    engine = machine.engine()
    engine.run(*exams)
    machine.fault = fault
    assert_results(engine.run(*exams), expected)
    assert machine.events == [EngineEvent.DEVICE_LOST, EngineEvent.CPU_BATCH]
    assert engine.device == "cpu"


def test_a_gpu_that_is_lost_between_two_halves_loses_no_exam(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    seen: list[int] = []

    def fault(size: int) -> None:
        seen.append(size)
        out_of_memory_above(4)(size)
        if len(seen) == 3:
            illegal_address(size)

    machine.fault = fault
    assert_results(engine.run(*exams), expected)
    assert seen == [8, 4, 4]
    assert machine.events == [
        EngineEvent.OUT_OF_MEMORY,
        EngineEvent.DEVICE_LOST,
        EngineEvent.CPU_BATCH,
    ]


def test_a_gpu_that_is_missing_at_the_start_is_used_when_it_appears(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    machine.missing = True
    engine = machine.engine()
    assert_results(engine.run(*exams), expected)
    assert (machine.events, engine.device) == (
        [EngineEvent.DEVICE_LOST, EngineEvent.CPU_BATCH],
        "cpu",
    )
    machine.missing = False
    machine.now += FIRST_PAUSE_SECONDS
    assert_results(engine.run(*exams), expected)
    assert machine.events[2:] == [EngineEvent.DEVICE_RETURNED]
    assert engine.device == "cuda"


def test_a_gpu_that_starts_but_fails_its_first_batch_is_as_good_as_missing(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    machine.fault = illegal_address
    engine = machine.engine()
    assert_results(engine.run(*exams), expected)
    assert engine.device == "cpu"


def test_the_gpu_is_tried_again_after_pauses_that_double_up_to_five_minutes(
    machine: Machine, exams: Exams
) -> None:
    machine.missing = True
    engine = machine.engine()
    tries: list[float] = []
    engine._start_gpu = lambda: tries.append(machine.now) or InjectedGpu(machine)  # type: ignore[func-returns-value]
    begun = machine.now
    while machine.now < begun + 1600:
        engine.run(exams[0][:1], exams[1][:1])
        machine.now += 1
    pauses = np.diff([begun, *tries])
    assert pauses.tolist() == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]
    assert pauses.max() == LONGEST_PAUSE_SECONDS


def test_a_gpu_that_fails_again_right_after_its_return_is_not_tried_every_five_seconds(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    machine.fault = illegal_address
    engine.run(*exams)
    begun, returns = machine.now, []
    for _ in range(40):
        machine.now += FIRST_PAUSE_SECONDS
        before = machine.events.count(EngineEvent.DEVICE_RETURNED)
        assert_results(engine.run(*exams), expected)
        if machine.events.count(EngineEvent.DEVICE_RETURNED) > before:
            returns.append(machine.now - begun)
    assert returns == [5, 15, 35, 75, 155]
    machine.fault = works
    machine.now = begun + 315
    engine.run(*exams)
    assert engine.device == "cuda"
    machine.fault = illegal_address
    engine.run(*exams)
    assert engine._try_at == machine.now + FIRST_PAUSE_SECONDS  # a batch that ran ends the series


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_computed_again_on_the_cpu(
    machine: Machine, exams: Exams, expected: NetworkOutput, factor: float
) -> None:
    engine = machine.engine()
    machine.factor = factor
    assert_results(engine.run(*exams), expected)
    assert machine.events == [EngineEvent.OUTPUT_NOT_FINITE, EngineEvent.CPU_BATCH]
    assert engine.device == "cuda"


def test_a_cpu_that_fails_as_well_is_an_engine_failure(
    machine: Machine, exams: Exams, tmp_path: Path
) -> None:
    machine.bundle = small_bundle(tmp_path)
    engine = machine.engine()
    (tmp_path / ONNX).write_bytes(b"changed")
    machine.fault = illegal_address
    with pytest.raises(EngineFailed, match="SHA-256 differs"):
        engine.run(*exams)


def test_weights_that_changed_meanwhile_keep_the_gpu_out_and_lose_no_exam(
    machine: Machine, exams: Exams, tmp_path: Path
) -> None:
    machine.bundle = small_bundle(tmp_path)
    engine = machine.engine()
    machine.fault = illegal_address
    engine.run(*exams)
    (tmp_path / WEIGHTS).write_bytes(b"changed")
    machine.now += FIRST_PAUSE_SECONDS
    assert_results(engine.run(*exams), OnnxEngine(machine.bundle).run(*exams))
    assert engine.device == "cpu"


def test_the_cpu_engine_is_made_when_it_is_first_needed(machine: Machine, exams: Exams) -> None:
    made: list[Engine] = []

    def start_cpu() -> Engine:
        made.append(OnnxEngine(machine.bundle))
        return made[-1]

    engine = FallbackEngine(
        lambda: InjectedGpu(machine),
        start_cpu,
        on_event=machine.events.append,
        monotonic=lambda: machine.now,
    )
    engine.run(*exams)
    assert made == []
    machine.fault = illegal_address
    engine.run(*exams)
    engine.run(*exams)
    assert len(made) == 1
