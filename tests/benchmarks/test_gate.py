"""No step may fall far behind what it cost at the last release; part of `make test`.

Costs are ratios to a fixed computation on the same machine in the same run, medians of rounds that
take turns; the limits are wide enough for a machine that others use.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.benchmarks.recorded import behind, recorded
from tests.benchmarks.steps import Step, cost, steps

pytestmark = pytest.mark.timeout(900)

_AGAIN = 2
"""A step that seems to be behind is measured again: what disturbed it is then mostly over."""


def measured(some: list[Step], before: dict[str, float]) -> dict[str, float]:
    """The cost of each step, the least of several measurements where one is too high."""
    costs = {}
    for step in some:
        costs[step.name] = cost(step)
        for _ in range(_AGAIN):
            if behind({step.name: costs[step.name]}, before):
                costs[step.name] = min(costs[step.name], cost(step))
    return costs


def test_no_step_has_fallen_behind_the_last_release(tmp_path: Path) -> None:
    before = recorded()
    with steps(tmp_path) as some:
        costs = measured(some, before)
    table = Table("step", "times its reference", "at the last release")
    for name, value in costs.items():
        table.add_row(name, f"{value:.2f}", f"{before[name]:.2f}")
    Console().print(table)
    assert costs.keys() == before.keys()
    assert behind(costs, before) == []


def test_a_step_that_became_slow_is_named(tmp_path: Path) -> None:
    """Three times the work, of the step that is quickest to measure."""
    with steps(tmp_path) as some:
        [decode] = [step for step in some if step.name == "decode"]

        def thrice() -> None:
            for _ in range(3):
                decode.ours()

        before = {"decode": cost(decode)}
        [words] = behind(measured([replace(decode, ours=thrice)], before), before)
    assert words.startswith("decode fell behind")


@pytest.mark.parametrize("step", ["receive", "decode"])
def test_noise_is_allowed_and_more_than_twice_the_cost_is_not(step: str) -> None:
    assert behind({step: 3.0 * 1.5}, {step: 3.0}) == []
    assert behind({step: 3.0 * 2.1}, {step: 3.0}) != []


def test_the_cost_is_how_much_longer_ours_takes() -> None:
    step = Step(
        name="sleep",
        ours=lambda: time.sleep(0.02),
        reference=lambda: time.sleep(0.01),
        clock=time.perf_counter,
    )
    assert cost(step) == pytest.approx(2, rel=0.5)
