"""Pictures of the reports, for people."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dicom_node.adapters.central.reports import Section


def draw(path: Path, name: str, sections: tuple[Section, ...]) -> None:
    """One panel for each section of a report, as PNG."""
    figure = Figure(figsize=(9.0, 4.5 * len(sections)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, section in enumerate(sections, start=1):
        axes = figure.add_subplot(len(sections), 1, number)
        axes.set_title(f"{name}: {section.name}")
        if section.rows:
            _PANELS[section.name](axes, section)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _column(section: Section, name: str) -> list[Any]:
    index = section.columns.index(name)
    return [row[index] for row in section.rows]


def _exams_a_day(axes: Axes, section: Section) -> None:
    days: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
    for day, region, exams in zip(
        _column(section, "day"), _column(section, "region"), _column(section, "exams"), strict=True
    ):
        days[region][day] += exams
    for region, counts in sorted(days.items()):
        axes.plot(list(counts), list(counts.values()), marker="o", label=region)
    axes.set_ylabel("exams a day")
    axes.legend()
    axes.tick_params(axis="x", rotation=45)


def _bars(label: str, value: str, unit: str) -> Any:
    def panel(axes: Axes, section: Section) -> None:
        names = [
            "\n".join(str(part) for part in parts if part)
            for parts in zip(*(_column(section, name) for name in label.split("+")), strict=True)
        ]
        axes.bar(names, [float(number) for number in _column(section, value)])
        axes.set_ylabel(unit)
        axes.tick_params(axis="x", rotation=45)

    return panel


def _bone_ages(axes: Axes, section: Section) -> None:
    years = _column(section, "bone_age_years")
    girls = [count or 0 for count in _column(section, "girls")]
    axes.bar(years, girls, label="girls")
    axes.bar(years, [n or 0 for n in _column(section, "boys")], bottom=girls, label="boys")
    axes.set_xlabel("bone age, years")
    axes.set_ylabel("exams")
    axes.legend()


def _seconds(axes: Axes, section: Section) -> None:
    stages = _column(section, "stage")
    for offset, percentile in enumerate(("p50", "p95", "p99")):
        places = [place + 0.25 * offset for place in range(len(stages))]
        axes.bar(places, _column(section, percentile), width=0.25, label=percentile)
    axes.set_xticks([place + 0.25 for place in range(len(stages))], stages)
    axes.set_ylabel("seconds")
    axes.legend()


_PANELS = {
    "exams_a_day": _exams_a_day,
    "outcomes": _bars("outcome+reason", "exams", "exams"),
    "bone_ages": _bone_ages,
    "seconds": _seconds,
    "availability": _bars("region+node", "ready_percent", "% of minutes ready"),
    "months": _bars("month+region+institution", "margin_brl", "margin, BRL"),
}
