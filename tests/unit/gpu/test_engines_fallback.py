"""A GPU that is lost, missing or wrong: every exam gets its result, and the GPU is used again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("onnx", reason="needs the train extra")

from inference.bundle import ONNX, WEIGHTS
from inference.engines.engine import Engine, EngineEvent
from inference.engines.fallback import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    FallbackEngine,
)
from inference.engines.onnx import OnnxEngine
from inference.prediction import EngineFailed, NetworkOutput
from tests.builders.models import small_bundle
from tests.fakes.gpu import (
    Exams,
    Fault,
    InjectedGpu,
    Machine,
    assert_results,
    fell_off_the_bus,
    illegal_address,
    out_of_memory_above,
    works,
)


def test_a_batch_goes_to_a_healthy_gpu_in_one_call(
    machine: Machine, exams: Exams, expected: NetworkOutput
) -> None:
    engine = machine.engine()
    machine.batches.clear()
    assert_results(engine.run(*exams), expected)
    assert machine.batches == [8]
    assert (machine.events, engine.device) == ([], "cuda")


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
