"""The learning rate's course."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from inference.training import train as training
from inference.training.run_config import RunConfig, read_run_config

STEPS = 100


@pytest.fixture(scope="module")
def config() -> RunConfig:
    path = Path(training.__file__).parent / "configs" / "lite0-352-hand.toml"
    read = read_run_config(path)
    optimizer = replace(read.optimizer, warmup_steps=50, decay_epochs=2)
    return replace(read, epochs=10, optimizer=optimizer)


def test_the_rate_rises_stays_and_falls_to_nothing_at_the_end(config: RunConfig) -> None:
    rates = [training._rate(config, step, STEPS) for step in range(10 * STEPS)]
    assert rates[:50] == pytest.approx([(step + 1) / 50 for step in range(50)])
    assert rates[50:800] == [1.0] * 750
    assert rates[800:] == pytest.approx([(200 - step) / 200 for step in range(200)])


def test_more_epochs_change_no_step_before_the_old_fall(config: RunConfig) -> None:
    longer = replace(config, epochs=20)
    for step in range(8 * STEPS):
        assert training._rate(config, step, STEPS) == training._rate(longer, step, STEPS)
