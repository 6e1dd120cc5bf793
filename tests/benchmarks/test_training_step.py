"""How much faster a training step is with the compiled kernels than with torch's own.

`make bench` runs it and writes `build/benchmarks/training.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="needs the torch extra")

import inference  # noqa: E402 - after the check for torch
from inference.network import BoneAgeNet  # noqa: E402
from inference.training import train as training  # noqa: E402
from inference.training.cpu_kernels import speed_up  # noqa: E402
from inference.training.loss import distribution_loss  # noqa: E402
from inference.training.run_config import read_run_config  # noqa: E402

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

REPOSITORY = Path(inference.__file__).parent.parent
CONFIG = REPOSITORY / "inference" / "training" / "configs" / "lite0-288-hand.toml"
RESULT = REPOSITORY / "build" / "benchmarks" / "training.json"
SIDES = (224, 288)
ROUNDS = 6


def step_of(network: BoneAgeNet, side: int) -> Callable[[], float]:
    """One step on one batch; returns its seconds."""
    config = read_run_config(CONFIG)
    config = replace(config, side=side)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    image = torch.randint(0, 256, (config.batch, 1, side, side)).float()
    image = image.contiguous(memory_format=torch.channels_last)
    male, months = torch.ones(config.batch, 1), torch.full((config.batch,), 120.0)

    def step() -> float:
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = distribution_loss(network(image, male), months, config.loss)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimizer.step()
        return time.perf_counter() - begun

    return step


def test_a_step_with_the_kernels_is_faster() -> None:
    training._keep_freed_memory()
    rows = []
    for side in SIDES:
        steps = []
        for fast in (True, False):
            torch.manual_seed(0)
            network = BoneAgeNet().train()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if fast:
                speed_up(network)
            steps.append(step_of(network, side))
            steps[-1]()
        seconds = [[step() for step in steps] for _ in range(ROUNDS)]
        with_kernels, plain = (median(column) for column in zip(*seconds, strict=True))
        rows.append(
            {
                "measured": "a training step of 32 images, with the kernels and without",
                "side": side,
                "threads": torch.get_num_threads(),
                "seconds with": with_kernels,
                "seconds without": plain,
                "ratio of rates": plain / with_kernels,
            }
        )
        Console().print(rows[-1])
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    assert all(row["ratio of rates"] > 1.0 for row in rows)
