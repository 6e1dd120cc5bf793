"""Where benchmarks leave their figures, and the one table of all of them.

``python -m tests.benchmarks.results`` prints what `build/benchmarks/` holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

import inference

FOLDER = Path(inference.__file__).parent.parent / "build" / "benchmarks"


def publish(name: str, title: str, rows: Sequence[dict[str, Any]], *, bars: str) -> None:
    """Print rows of the same keys, write `NAME.json`, `NAME.md` for docs/performance.md and a
    picture of the numbers under ``bars``; the first key names a row."""
    cells = [[_shown(value) for value in row.values()] for row in rows]
    table = Table(*rows[0], title=title, title_justify="left")
    for line in cells:
        table.add_row(*line)
    Console(width=160).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (FOLDER / f"{name}.md").write_text(f"{title}:\n\n{text}", encoding="utf-8")
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(8, 1 + 0.35 * len(rows)), layout="constrained")
    names = [str(next(iter(row.values()))) for row in rows]
    shown = axes.barh(names, [float(row[bars]) for row in rows])
    axes.bar_label(shown, fmt="%.3g")
    axes.invert_yaxis()
    axes.set_title(f"{title}: {bars}", fontsize="small")
    figure.savefig(FOLDER / f"{name}.png", dpi=110)
    plt.close(figure)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def ratios(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers whose name, or that of what they stand in, says ratio; what they are of."""
    if isinstance(found, dict):
        words = [str(value) for value in found.values() if isinstance(value, str)]
        for key, value in found.items():
            yield from ratios(value, " ".join(filter(None, [path, *words[:2], str(key)])))
    elif isinstance(found, list):
        for item in found:
            yield from ratios(item, path)
    elif isinstance(found, int | float) and "ratio" in path:
        yield path, float(found)


def summary() -> Table:
    """The ratios of every benchmark that has left its figures."""
    table = Table("benchmark", "ratio", "value", title="Benchmarks", title_justify="left")
    for path in sorted(FOLDER.glob("*.json")):
        for name, value in ratios(json.loads(path.read_text(encoding="utf-8"))):
            table.add_row(path.stem, name, f"{value:.2f}")
    return table


if __name__ == "__main__":
    Console(width=160).print(summary())
