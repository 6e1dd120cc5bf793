"""What came of a load: every exam accounted for, percentiles, memory; table, JSON and picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

import inference
from tests.load.plant import Fate, Sample
from tests.load.traffic import Shot

BUILD = Path(inference.__file__).parent.parent / "build"
MAX_ERRORS = 0.001
"""Promised: less than this share of the exams fails."""


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """The smallest value that this share of all did not exceed."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[ceil(share / 100 * len(ordered)) - 1], 4) if ordered else None
        for share in (50, 95, 99)
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The sums of a load. ``answers``: of all attempts. ``store`` and ``end_to_end``: seconds, from
    the begin of the C-STORE to its response and to the last report object in the archive."""

    name: str
    seconds: float
    """Until the last exam was reported."""
    associations: int
    """Open at the same time, at most."""
    sent: int
    acknowledged: int
    answers: dict[str, int]
    reported: int
    parked: int
    lost: tuple[str, ...]
    """Acknowledged, and neither reported nor parked."""
    acknowledged_after: float
    """Seconds from the first exam's time to the last response."""
    late: float
    """Seconds that the latest request went out after its time: the stations were busy."""
    store: dict[str, float | None]
    end_to_end: dict[str, float | None]
    resident_mb: dict[str, float]
    """The most that each process held."""

    @property
    def errors(self) -> int:
        """Exams that were sent and not reported."""
        return self.sent - self.reported

    def broken_promises(self) -> list[str]:
        """In words; none when all is well."""
        broken = []
        if self.lost:
            broken.append(f"{len(self.lost)} acknowledged exams are neither reported nor parked")
        if self.errors >= max(1.0, MAX_ERRORS * self.sent):
            broken.append(f"{self.errors} of {self.sent} exams were not reported")
        return broken

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**vars(self), "errors": self.errors, "broken": self.broken_promises()}


def outcome_of(
    name: str,
    shots: Sequence[Shot],
    fates: Mapping[str, Fate],
    samples: Sequence[Sample],
    *,
    associations: int,
) -> Outcome:
    """Account for every exam."""
    known = [(shot, fates.get(shot.sop_instance_uid)) for shot in shots]
    reported = [(s, f.reported_at) for s, f in known if f is not None and f.reported_at is not None]
    lost = [
        shot.sop_instance_uid
        for shot, fate in known
        if shot.acknowledged and (fate is None or (fate.reported_at is None and not fate.parked))
    ]
    acknowledged = [shot for shot in shots if shot.acknowledged]
    beginning = min(shot.begun - shot.due for shot in shots)
    answered = [shot.begun + shot.seconds for shot in acknowledged]
    names = sorted({name for sample in samples for name in sample.resident_mb})
    return Outcome(
        name=name,
        seconds=round(max((at for _, at in reported), default=beginning) - beginning, 1),
        associations=associations,
        sent=len(shots),
        acknowledged=len(acknowledged),
        answers=dict(Counter(answer for shot in shots for answer in shot.answers)),
        reported=len(reported),
        parked=sum(fate.parked for _, fate in known if fate is not None),
        lost=tuple(lost),
        acknowledged_after=round(max(answered, default=beginning) - beginning, 1),
        late=round(max(shot.begun - beginning - shot.due for shot in shots), 2),
        store=percentiles([shot.seconds for shot in acknowledged]),
        end_to_end=percentiles([at - shot.begun for shot, at in reported]),
        resident_mb={
            process: round(max(s.resident_mb.get(process, 0.0) for s in samples), 1)
            for process in names
        },
    )


def show(outcome: Outcome, console: Console) -> None:
    """A table for people."""
    table = Table(title=f"{outcome.name}: {outcome.sent} exams", title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    answers = ", ".join(f"{count} x {answer}" for answer, count in sorted(outcome.answers.items()))
    rows = {
        "associations open at once": outcome.associations,
        "acknowledged": outcome.acknowledged,
        "answers to all attempts": answers,
        "reported": outcome.reported,
        "parked": outcome.parked,
        "lost": len(outcome.lost),
        "last response after": f"{outcome.acknowledged_after:.1f} s",
        "last report after": f"{outcome.seconds:.1f} s",
        "stations late by at most": f"{outcome.late:.1f} s",
        "C-STORE P50 / P95 / P99": in_words(outcome.store),
        "end to end P50 / P95 / P99": in_words(outcome.end_to_end),
        **{f"memory of {name}": f"{mb:.0f} MB" for name, mb in outcome.resident_mb.items()},
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)
    for broken in outcome.broken_promises():
        console.print(f"BROKEN PROMISE: {broken}", style="bold red")


def in_words(some: Mapping[str, float | None]) -> str:
    """Percentiles in milliseconds."""
    return " / ".join("-" if s is None else f"{s * 1000:.0f}" for s in some.values()) + " ms"


def save(outcome: Outcome, path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(outcome.as_json(), indent=2) + "\n", encoding="utf-8")


def draw(
    shots: Sequence[Shot],
    fates: Mapping[str, Fate],
    samples: Sequence[Sample],
    path: Path,
    marks: Sequence[tuple[float, str]] = (),
) -> None:
    """Arrivals and reports over time, what waits, memory, and the time of each exam. ``marks``:
    times of the wall clock and what happened then."""
    mpl.use("Agg")
    beginning = min(shot.begun - shot.due for shot in shots)
    begun = [shot.begun - beginning for shot in shots]
    done = [
        (at - beginning, at - shot.begun)
        for shot in shots
        if (fate := fates.get(shot.sop_instance_uid)) and (at := fate.reported_at) is not None
    ]
    figure, (flow, queue, times, memory) = plt.subplots(
        4, 1, figsize=(11, 12), sharex=True, layout="constrained"
    )
    end = max([*begun, *(at for at, _ in done), 1.0])
    bins = [n * end / 60 for n in range(61)]
    flow.hist(begun, bins, label="sent", histtype="step")
    flow.hist([at for at, _ in done], bins, label="reported", histtype="step")
    flow.set_ylabel(f"exams in {bins[1]:.0f} s")
    seconds = [sample.at - beginning for sample in samples]
    for stage in sorted({stage for sample in samples for stage in sample.waiting}):
        queue.plot(seconds, [sample.waiting.get(stage, 0) for sample in samples], label=stage)
    queue.plot(seconds, [s.open_exams for s in samples], "k:", label="exams on their way")
    queue.set_ylabel("waiting")
    times.semilogy([at for at, _ in done], [took for _, took in done], ".", markersize=2)
    times.set_ylabel("end to end, s")
    for name in sorted({name for sample in samples for name in sample.resident_mb}):
        memory.plot(seconds, [s.resident_mb.get(name) for s in samples], label=name)
    memory.set_ylabel("resident, MB")
    memory.set_xlabel("seconds")
    kinds = list(dict.fromkeys(what for _, what in marks))
    colours = dict(zip(kinds, mpl.color_sequences["tab10"], strict=False))
    for what, colour in colours.items():
        moments = [at - beginning for at, named in marks if named == what]
        for axes in (flow, queue, times):
            label = what if axes is flow else None
            through = axes.get_xaxis_transform()
            axes.vlines(moments, 0, 1, colour, transform=through, lw=0.5, label=label)
    for axes in (flow, queue, memory):
        axes.legend(loc="upper left", fontsize="x-small", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
