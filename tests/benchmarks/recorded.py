"""What the steps cost at the last release: ``python -m tests.benchmarks.recorded`` records anew."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from dicom_node import __version__
from tests.benchmarks.steps import cost, steps

FILE = Path(__file__).with_suffix(".toml")
TOLERANCE = 0.6
"""A step may cost so much more than was recorded: that share."""
TOLERANCE_OF = {"receive": 1.0}
"""Of the step that waits for the disk and for other processes; the others count their CPU time.
docs/performance.md has the spread."""
_TIMES = 3


def recorded() -> dict[str, float]:
    """Step to its cost."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: float(value) for name, value in found["costs"].items()}


def behind(costs: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """The steps that cost too much, in words."""
    limits = {name: cost * (1 + TOLERANCE_OF.get(name, TOLERANCE)) for name, cost in before.items()}
    return [
        f"{name} fell behind: {value:.2f} times its reference, {before[name]:.2f} at the last "
        f"release (allowed: {limits[name]:.2f}); where that is meant, "
        "`python -m tests.benchmarks.recorded` records anew"
        for name, value in costs.items()
        if value > limits[name]
    ]


def record() -> None:
    """Measure several times, write the medians."""
    measured: dict[str, list[float]] = {}
    for _ in range(_TIMES):
        with tempfile.TemporaryDirectory() as folder, steps(Path(folder)) as some:
            for step in some:
                measured.setdefault(step.name, []).append(cost(step))
    table = Table("step", "recorded", "least", "most")
    lines = [
        "# What each step costs, as a multiple of its reference in steps.py;",
        "# `python -m tests.benchmarks.recorded` writes it, test_gate.py compares.",
        f'version = "{__version__}"',
        "",
        "[costs]",
    ]
    for name, values in measured.items():
        lines.append(f"{name} = {median(values):.2f}")
        table.add_row(
            name, *(f"{value:.2f}" for value in (median(values), min(values), max(values)))
        )
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console().print(table)


if __name__ == "__main__":
    record()
