"""Equal inputs get equal answers without running the network again, and no other ones do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.engines.engine import Device, EngineEvent
from inference.engines.remembering import RememberingEngine
from inference.prediction import EngineFailed, NetworkOutput

SIDE = 4


class CountingEngine:
    """Answers with numbers that its input determines, and notes every batch."""

    device: Device = "cpu"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failing = False

    def run(self, images: NDArray[np.uint8], male: NDArray[np.float32]) -> NetworkOutput:
        if self.failing:
            raise EngineFailed("stopped")
        self.batches.append(len(images))
        months = images.mean(axis=(1, 2, 3), dtype=np.float32) + male[:, 0] / 2
        return NetworkOutput(
            mean_months=months,
            sd_months=months + 1,
            saliency=np.broadcast_to(months[:, None, None], (len(images), 2, 2)).copy(),
        )


def images(*levels: int) -> NDArray[np.uint8]:
    """One flat image for each grey level, (B, 1, 4, 4)."""
    return np.stack([np.full((1, SIDE, SIDE), level, np.uint8) for level in levels])


def sexes(*male: int) -> NDArray[np.float32]:
    return np.array(male, np.float32)[:, None]


@pytest.fixture
def counting() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def events() -> list[EngineEvent]:
    return []


def remembering(
    engine: CountingEngine, events: list[EngineEvent], capacity: int = 8
) -> RememberingEngine:
    return RememberingEngine(engine, "a" * 64, on_event=events.append, capacity=capacity)


def assert_answers(output: NetworkOutput, months: list[float]) -> None:
    assert output.mean_months.tolist() == months
    assert output.sd_months.tolist() == [m + 1 for m in months]
    assert output.saliency[:, 1, 1].tolist() == months
    assert output.mean_months.dtype == output.saliency.dtype == np.float32


def test_an_image_that_comes_again_is_answered_without_the_network(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    engine = remembering(counting, events)
    first = engine.run(images(10, 20), sexes(0, 0))
    again = engine.run(images(20, 10), sexes(0, 0))
    assert_answers(first, [10.0, 20.0])
    assert_answers(again, [20.0, 10.0])
    assert counting.batches == [2]
    assert events == [EngineEvent.DUPLICATE] * 2


def test_equal_images_within_a_batch_run_once(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    output = remembering(counting, events).run(images(10, 30, 10, 20, 30), sexes(0, 0, 0, 0, 0))
    assert_answers(output, [10.0, 30.0, 10.0, 20.0, 30.0])
    assert counting.batches == [3]
    assert events == [EngineEvent.DUPLICATE] * 2


def test_known_and_new_images_of_a_batch_keep_their_order(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    engine = remembering(counting, events)
    engine.run(images(10), sexes(0))
    assert_answers(engine.run(images(30, 10, 20), sexes(0, 0, 0)), [30.0, 10.0, 20.0])
    assert counting.batches == [1, 2]


def test_the_same_image_of_the_other_sex_or_one_level_apart_is_another_input(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    engine = remembering(counting, events)
    nearly = images(10)
    nearly[0, 0, 2, 3] += 1
    engine.run(images(10), sexes(0))
    assert_answers(engine.run(images(10), sexes(1)), [10.5])
    assert engine.run(nearly, sexes(0)).mean_months[0] > 10.0
    assert counting.batches == [1, 1, 1]
    assert events == []


def test_the_oldest_answer_is_forgotten_and_a_used_one_is_not(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    engine = remembering(counting, events, capacity=2)
    engine.run(images(1, 2), sexes(0, 0))
    engine.run(images(1), sexes(0))
    engine.run(images(3), sexes(0))
    counting.batches.clear()
    engine.run(images(1), sexes(0))
    assert counting.batches == []
    engine.run(images(2), sexes(0))
    assert counting.batches == [1]


def test_a_batch_larger_than_the_memory_is_answered(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    output = remembering(counting, events, capacity=1).run(images(1, 2, 3), sexes(0, 0, 0))
    assert_answers(output, [1.0, 2.0, 3.0])


def test_an_answer_that_a_caller_changes_is_not_changed_for_the_next(
    counting: CountingEngine, events: list[EngineEvent]
) -> None:
    engine = remembering(counting, events)
    output = engine.run(images(10), sexes(0))
    output.saliency[:] = 99
    output.mean_months[:] = 99
    assert_answers(engine.run(images(10), sexes(0)), [10.0])


def test_a_failure_is_not_remembered(counting: CountingEngine, events: list[EngineEvent]) -> None:
    engine = remembering(counting, events)
    counting.failing = True
    with pytest.raises(EngineFailed):
        engine.run(images(10), sexes(0))
    counting.failing = False
    assert_answers(engine.run(images(10), sexes(0)), [10.0])
