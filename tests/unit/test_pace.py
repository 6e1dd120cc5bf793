"""How fast an institution may send."""

from __future__ import annotations

import pytest

from dicom_node.scp.pace import MAX_WAIT_SECONDS, Pace


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_minutes_worth_comes_at_once_and_then_at_the_rate() -> None:
    clock = Clock()
    pace = Pace({"a": 60}, now=clock)
    assert [pace.wait_seconds("a") for _ in range(60)] == [0.0] * 60
    for _ in range(20):
        waited = pace.wait_seconds("a")
        assert waited == pytest.approx(1.0)
        clock.seconds += waited
    clock.seconds += 30
    assert [pace.wait_seconds("a") for _ in range(29)] == [0.0] * 29
    assert pace.wait_seconds("a") >= 0.0


def test_one_institution_does_not_slow_another_and_none_is_slowed_without_a_limit() -> None:
    pace = Pace({"a": 1, "b": 60}, now=Clock())
    assert [pace.wait_seconds("a") > 0 for _ in range(3)] == [False, True, True]
    assert pace.wait_seconds("b") == 0.0
    assert [pace.wait_seconds("c") for _ in range(1000)] == [0.0] * 1000


def test_no_answer_is_held_back_for_long_and_a_flood_is_forgotten_soon() -> None:
    clock = Clock()
    pace = Pace({"a": 60}, now=clock)
    waited = [pace.wait_seconds("a") for _ in range(10_000)]
    assert max(waited) == pytest.approx(MAX_WAIT_SECONDS)
    clock.seconds += MAX_WAIT_SECONDS + 1
    assert pace.wait_seconds("a") == 0.0
