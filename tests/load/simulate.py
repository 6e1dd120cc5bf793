"""A hospital day in minutes: 20 stations, kills, an archive that goes away, broken transfers.

``python -m tests.load.simulate --exams 10000 --seed 1``. Ends with 1 when a promise is broken.
Writes `build/simulate.json` and `build/simulate.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.load.day import accidents, happening, institutions, stations
from tests.load.films import films
from tests.load.outcome import BUILD, Outcome, draw, in_words, outcome_of, percentiles, show
from tests.load.plant import Fate, Plant, Sample, running_plant
from tests.load.traffic import Manner, Shot, Traffic
from tests.peers.invariants import check_fates_of, check_rest

EXAMS_PER_SECOND = 8.0
"""On average; in the peak it is more than twice that."""
ACCIDENT_EVERY = 25.0
PIXEL_SETS = 200
PATIENCE_SECONDS = 300.0
DRAIN_SECONDS = 3600.0
WARM_SHARE = 0.3
MIN_WARM_SECONDS = 300.0
"""A shorter time says nothing about growth: processes still warm up."""
MAX_GROWTH_MB = 80.0
"""Of all processes together, from a third of the day to its end."""
CALM_SECONDS, CALM_QUEUE = 20.0, 4
CALM_P95_SECONDS = 3.0
MIN_CALM = 20
"""Fewer of them have no 95th percentile worth the name."""
"""For exams that met no accident within so many seconds before or after, and no queue."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Whether the same pixels got the same answer. ``whole_day``: sets of pixels that came in the
    first, the middle and the last third."""

    pixel_sets: int
    whole_day: int
    changed: tuple[int, ...]


def drift_of(shots: Sequence[Shot], fates: Mapping[str, Fate], seconds: float) -> Drift:
    """Look at the exams whose pixels came again and again."""
    answers: dict[int, set[tuple[str, float | None]]] = {}
    thirds: dict[int, set[int]] = {}
    for shot in shots:
        fate = fates.get(shot.sop_instance_uid)
        if shot.as_drawn and fate is not None and fate.reported_at is not None:
            answers.setdefault(shot.film.number, set()).add((fate.outcome, fate.months))
            thirds.setdefault(shot.film.number, set()).add(min(2, int(3 * shot.due / seconds)))
    return Drift(
        pixel_sets=len(answers),
        whole_day=sum(len(some) == 3 for some in thirds.values()),
        changed=tuple(sorted(number for number, some in answers.items() if len(some) > 1)),
    )


def growth_mb(samples: Sequence[Sample]) -> float:
    """How much more all processes hold at the end than after the warm-up, by a line through the
    moments at which none was missing; 0 where the time is too short to tell."""
    most = max(len(sample.resident_mb) for sample in samples)
    whole = [sample for sample in samples if len(sample.resident_mb) == most]
    warm = [s for s in whole if s.at > whole[0].at + WARM_SHARE * (whole[-1].at - whole[0].at)]
    if not warm or warm[-1].at - warm[0].at < MIN_WARM_SECONDS:
        return 0.0
    slope = np.polyfit([s.at for s in warm], [s.total_mb for s in warm], 1)[0]
    return float(slope * (warm[-1].at - warm[0].at))


def calm(
    shots: Sequence[Shot], samples: Sequence[Sample], marks: Sequence[tuple[float, str]]
) -> list[Shot]:
    """Exams that came to a node that was whole and had nothing else to do."""
    busy = [sample.at for sample in samples if sample.open_exams > CALM_QUEUE]
    moments = np.sort(np.array([at for at, _ in marks] + busy))
    found = []
    for shot in shots:
        near = np.searchsorted(moments, shot.begun - CALM_SECONDS)
        if near == len(moments) or moments[near] > shot.begun + CALM_SECONDS:
            found.append(shot)
    return found


@dataclass(frozen=True, kw_only=True)
class Day:
    """What came of it."""

    outcome: Outcome
    accidents: dict[str, int]
    drift: Drift
    growth_mb: float
    calm: int
    calm_end_to_end: dict[str, float | None]

    def broken_promises(self) -> list[str]:
        """In words; none when all is well."""
        broken = self.outcome.broken_promises()
        if self.drift.changed:
            broken.append(f"the same pixels got different answers: sets {self.drift.changed}")
        if self.growth_mb > MAX_GROWTH_MB:
            broken.append(f"memory grew by {self.growth_mb:.0f} MB")
        if self.calm >= MIN_CALM and (self.calm_end_to_end["p95"] or 0.0) > CALM_P95_SECONDS:
            broken.append(f"undisturbed exams took {in_words(self.calm_end_to_end)}")
        return broken


def simulate(
    folder: Path,
    *,
    exams: int,
    seed: int,
    console: Console,
    exams_per_second: float = EXAMS_PER_SECOND,
    target: Path = BUILD,
) -> Day:
    """One day. Raises ``AssertionError`` when what the node, its ledger, its metrics and the
    archive hold does not agree."""
    some = films(max(10, min(PIXEL_SETS, exams // 50)))
    seconds = exams / exams_per_second
    coming = accidents(seconds=seconds, every=ACCIDENT_EVERY, seed=seed)
    with running_plant(folder, extra=institutions()) as plant:
        everybody = stations(some, exams=exams, seconds=seconds, seed=seed)
        shots = sorted((s for _, own in everybody for s in own), key=lambda shot: shot.due)
        manner = Manner(patience=PATIENCE_SECONDS, breaks_off=0.01)
        traffic = Traffic(plant.node.note["port"], everybody, manner)
        with plant.watched(), happening(plant, coming) as happened:
            _watch(traffic, plant, len(shots), happened, console)
        marks = list(happened)
        fates = plant.fates()
        _check(plant, shots)
        associations = traffic.most_admitted
    outcome = outcome_of("simulate", shots, fates, plant.samples, associations=associations)
    undisturbed = calm(shots, plant.samples, marks)
    took = [
        at - shot.begun
        for shot in undisturbed
        if (fate := fates.get(shot.sop_instance_uid)) and (at := fate.reported_at) is not None
    ]
    day = Day(
        outcome=outcome,
        accidents=dict(Counter(what for _, what in marks)),
        drift=drift_of(shots, fates, seconds),
        growth_mb=round(growth_mb(plant.samples), 1),
        calm=len(undisturbed),
        calm_end_to_end=percentiles(took),
    )
    draw(shots, fates, plant.samples, target / "simulate.png", marks)
    return day


def _watch(
    traffic: Traffic,
    plant: Plant,
    count: int,
    happened: Sequence[tuple[float, str]],
    console: Console,
) -> None:
    with Live(console=console, transient=True, refresh_per_second=2) as live:

        def look() -> None:
            if not plant.samples:
                return
            last = plant.samples[-1]
            table = Table("seconds", "acknowledged", "on their way", "memory, MB", "last accident")
            table.add_row(
                f"{time.time() - traffic.begun:.0f}",
                f"{traffic.acknowledged} of {count}",
                str(last.open_exams),
                f"{last.total_mb:.0f}",
                happened[-1][1] if happened else "",
            )
            live.update(table)

        traffic.run(look)
        deadline = time.time() + DRAIN_SECONDS
        while plant.sample().open_exams and time.time() < deadline:
            look()
            time.sleep(1)


def _check(plant: Plant, shots: Sequence[Shot]) -> None:
    """The sums, as after every fault."""
    acknowledged = [shot.sop_instance_uid for shot in shots if shot.acknowledged]
    check_fates_of(plant.node, acknowledged, Counter(plant.archive.stored_at().keys()))
    check_rest(plant.node)


def tell(day: Day, console: Console, target: Path = BUILD) -> None:
    """Print it and keep it."""
    show(day.outcome, console)
    table = Table(title="the day", title_justify="left", show_header=False)
    for kind, count in sorted(day.accidents.items()):
        table.add_row(kind, str(count))
    table.add_row("sets of pixels that came again", str(day.drift.pixel_sets))
    table.add_row("of these all day long", str(day.drift.whole_day))
    table.add_row("of these with another answer", str(len(day.drift.changed)))
    table.add_row("growth of memory", f"{day.growth_mb:.0f} MB")
    table.add_row("exams without accident and queue", str(day.calm))
    table.add_row("their end to end P50 / P95 / P99", in_words(day.calm_end_to_end))
    console.print(table)
    for broken in day.broken_promises():
        console.print(f"BROKEN PROMISE: {broken}", style="bold red")
    found = {
        **day.outcome.as_json(),
        "accidents": day.accidents,
        "drift": vars(day.drift),
        "growth_mb": day.growth_mb,
        "calm": day.calm,
        "calm_end_to_end": day.calm_end_to_end,
        "broken": day.broken_promises(),
    }
    target.mkdir(parents=True, exist_ok=True)
    path = target / "simulate.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """One day of as many exams as told."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.simulate", description=__doc__)
    parser.add_argument("--exams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of times, stations and accidents")
    parser.add_argument("--per-second", type=float, default=EXAMS_PER_SECOND, help="on average")
    given = parser.parse_args()
    console = Console()
    console.print(f"{given.exams} exams of a day, seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="simulate-") as folder:
        day = simulate(
            Path(folder) / "plant",
            exams=given.exams,
            seed=given.seed,
            console=console,
            exams_per_second=given.per_second,
        )
    tell(day, console)
    return 1 if day.broken_promises() else 0


if __name__ == "__main__":
    sys.exit(main())
