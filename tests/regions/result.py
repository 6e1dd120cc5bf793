"""How it ended: tables for people, JSON for programs, a picture of the way there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.regions.story import Outage, Recovery
from tests.regions.sums import Equality, InstitutionBooks, RegionBooks
from tests.regions.watch import Moment

_LINES = (
    ("acknowledged", "acknowledged by the node", "#666666"),
    ("delivered", "reported in the PACS (hands only)", "#1b7fb5"),
    ("centre", "known to the centre", "#d1602a"),
)
_SHADES = {"centre": "#f5dcd0", "PACS": "#d3e6f1", "node": "#e3e3e3"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that is known at the end."""

    seconds: float
    exams_per_region: int
    institutions: Sequence[InstitutionBooks]
    regions: Sequence[RegionBooks]
    equalities: Sequence[Equality]
    outages: Sequence[Outage]
    recoveries: Sequence[Recovery]
    moments: Sequence[Moment]
    counts: dict[str, dict[str, int]]
    """By region: unanswered attempts, repeated images, strangers."""
    addresses: dict[str, set[str]]
    """By region: where senders called from, as its node saw it."""

    @property
    def equal(self) -> bool:
        """Whether every equality holds."""
        return all(equality.holds for equality in self.equalities)


def as_json(result: Result) -> dict[str, Any]:
    """For programs; books of single images are left out."""
    return {
        "equal": result.equal,
        "seconds": round(result.seconds, 1),
        "exams_per_region": result.exams_per_region,
        "equalities": [asdict(item) | {"holds": item.holds} for item in result.equalities],
        "outages": [asdict(recovery) for recovery in result.recoveries],
        "traffic": result.counts,
        "senders_seen_from": {name: sorted(found) for name, found in result.addresses.items()},
        "moments": [asdict(moment) for moment in result.moments],
    }


def write_json(path: Path, result: Result) -> None:
    """Write it as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(result), indent=2) + "\n", encoding="utf-8")


def show(console: Console, result: Result) -> None:
    """What was held up, then the books side by side, then every difference by name."""
    for item in result.recoveries:
        late = item.seconds
        until = "not yet all through" if late is None else f"through {late:.0f} s later"
        console.print(
            f"{item.what} away from {', '.join(item.regions)} for {item.outage_seconds:.0f} s: "
            f"{item.behind} exams held up, {until}",
            soft_wrap=True,
        )
    console.print(_institutions(result))
    console.print(_regions(result))
    for equality in result.equalities:
        if not equality.holds:
            console.print(
                f"[red]{equality.where}: {equality.what} does not hold: {equality.left} and "
                f"{equality.right}; {equality.difference}[/]",
                soft_wrap=True,
            )
    verdict = "[green]the sums are equal everywhere[/]" if result.equal else "[red]sums differ[/]"
    console.print(f"{verdict} after {result.seconds:.0f} s")


def _institutions(result: Result) -> Table:
    table = Table(title="Exams of each institution", title_justify="left")
    table.add_column("region")
    table.add_column("institution")
    for heading in ("sent", "acked", "ledger", "centre", "report", "equal"):
        table.add_column(heading, justify="right")
    rows = [
        (
            len(item.sent),
            len(item.acknowledged),
            item.ledger.total(),
            item.centre.total(),
            item.report.total(),
        )
        for item in result.institutions
    ]
    for item, row in zip(result.institutions, rows, strict=True):
        tick = _tick(result, f"{item.region} {item.institution_id}")
        table.add_row(item.region, item.institution_id, *map(str, row), tick)
    table.add_section()
    sums = [sum(column) for column in zip(*rows, strict=True)]
    table.add_row("sum", "", *map(str, sums), "✓" if len(set(sums)) == 1 else "[red]✗[/]")
    return table


def _regions(result: Result) -> Table:
    table = Table(title="Report objects and strangers of each region", title_justify="left")
    table.add_column("region")
    headings = ("sent", "in PACS", "strangers", "rejected", "again", "retries")
    for heading in (*headings, "equal"):
        table.add_column(heading, justify="right")
    for item in result.regions:
        counts = result.counts[item.region]
        row = (
            item.delivered.total(),
            item.pacs.total(),
            item.strangers_sent,
            item.strangers_rejected,
            counts["repeated"],
            counts["unanswered"],
        )
        table.add_row(item.region, *map(str, row), _tick(result, item.region))
    return table


def _tick(result: Result, where: str) -> str:
    holds = all(item.holds for item in result.equalities if item.where == where)
    return "[green]✓[/]" if holds else "[red]✗[/]"


def draw(path: Path, result: Result) -> None:
    """Exams at the PACS and at the centre over time, a panel for each region, outages shaded."""
    names = [item.region for item in result.regions]
    figure = Figure(figsize=(11.0, 7.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, -(-len(names) // 2), sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=True):
        _draw_region(axes, name, result)
    for axes in panels[-1]:
        axes.set_xlabel("seconds")
    for axes in panels[:, 0]:
        axes.set_ylabel("exams")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _draw_region(axes: Axes, name: str, result: Result) -> None:
    axes.set_title(name, loc="left", fontweight="bold")
    for outage in result.outages:
        if name in outage.regions:
            axes.axvspan(outage.begin, outage.end, color=_SHADES[outage.what], linewidth=0)
            axes.text(
                (outage.begin + outage.end) / 2, 0.97, f"{outage.what}\naway",
                transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9,
            )  # fmt: skip
    seconds = [moment.seconds for moment in result.moments]
    for field, label, colour in _LINES:
        values = [getattr(moment.regions[name], field) for moment in result.moments]
        axes.step(seconds, values, where="post", label=label, color=colour, linewidth=1.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
