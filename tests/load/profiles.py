"""What people promise of a node, as loads: so many exams, so fast, over so many associations."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.load.films import COLUMNS, ROWS, Film, films
from tests.load.outcome import BUILD, Outcome, draw, outcome_of, save, show
from tests.load.plant import Plant, running_plant
from tests.load.traffic import Manner, Shot, Traffic

DRAIN_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A load at full length. ``alone``: each exam begins when the one before is reported, and the
    rate says nothing. ``stays``: associations stay open for the whole time."""

    exams: int
    seconds: float
    associations: int
    meaning: str
    stays: bool = True
    alone: bool = False


PROFILES = {
    "single": Profile(
        exams=30, seconds=0.0, associations=1, alone=True, meaning="one exam at a time"
    ),
    "office": Profile(
        exams=500, seconds=3600.0, associations=4, meaning="500 exams in an hour, 4 stations"
    ),
    "sustained": Profile(
        exams=1000, seconds=3600.0, associations=16, meaning="1,000 exams in an hour, 16 stations"
    ),
    "users": Profile(
        exams=1000,
        seconds=3600.0,
        associations=100,
        meaning="1,000 exams in an hour from 100 users, each with an association that stays open",
    ),
    "burst": Profile(
        exams=2000, seconds=60.0, associations=16, meaning="2,000 exams in a minute, 16 stations"
    ),
}


def shots_of(
    profile: Profile, some: Sequence[Film], *, factor: float, speed: float, seed: int
) -> list[Shot]:
    """Exams at times by chance (a Poisson process), in their order. ``factor``: this share of the
    length; ``speed``: so many times as fast."""
    chance, run = random.Random(seed), time.time_ns()
    count = max(1, round(profile.exams * factor))
    length = profile.seconds * factor / speed
    times = sorted(chance.uniform(0, length) for _ in range(count))
    return [
        Shot(number=number, film=some[number % len(some)], run=run, due=due)
        for number, due in enumerate(times, 1)
    ]


def run_profile(
    name: str,
    *,
    factor: float,
    speed: float = 1.0,
    seed: int = 1,
    rows: int = ROWS,
    columns: int = COLUMNS,
    extra: str = "",
    target: Path = BUILD / "load",
    console: Console | None = None,
) -> Outcome:
    """Run a load against a node of its own; writes JSON and a picture to ``target``.

    ``extra``: more of the node's configuration, as TOML."""
    console = console or Console()
    profile = PROFILES[name]
    console.print(f"{name}: {profile.meaning}; factor {factor:g}, speed {speed:g}")
    some = films(16, rows=rows, columns=columns)
    shots = shots_of(profile, some, factor=factor, speed=speed, seed=seed)
    with (
        tempfile.TemporaryDirectory(prefix="load-") as folder,
        running_plant(Path(folder), extra=extra) as plant,
    ):
        _warm(plant, some[0])
        with plant.watched():
            if profile.alone:
                associations = _one_by_one(plant, shots)
            else:
                associations = _together(plant, shots, profile, console)
            plant.node.wait_until_idle(DRAIN_SECONDS)
        fates = plant.fates()
    outcome = outcome_of(name, shots, fates, plant.samples, associations=associations)
    show(outcome, console)
    save(outcome, target / f"{name}.json")
    draw(shots, fates, plant.samples, target / f"{name}.png")
    return outcome


def _warm(plant: Plant, film: Film) -> None:
    """What the first exams of a process load, later ones have: two for each worker."""
    some = [Shot(number=n, film=film, run=time.time_ns(), due=0.0) for n in range(4)]
    Traffic(plant.node.note["port"], [("WARM", some)], Manner()).run()
    plant.node.wait_until_idle(120)


def _one_by_one(plant: Plant, shots: Sequence[Shot]) -> int:
    for shot in shots:
        shot.due = 0.0
        Traffic(plant.node.note["port"], [("ALONE", [shot])], Manner()).run()
        shot.due = shot.begun - shots[0].begun
        plant.node.wait_until_idle(60)
    return 1


def _together(plant: Plant, shots: list[Shot], profile: Profile, console: Console) -> int:
    """All stations take from one list: the next free one sends the next exam. Users with an open
    association each have exams of their own. Returns how many associations were open at once."""
    names = [f"STATION-{n:03d}" for n in range(profile.associations)]
    own = profile.associations > 50
    stations = [(name, shots[n :: len(names)] if own else shots) for n, name in enumerate(names)]
    traffic = Traffic(plant.node.note["port"], stations, Manner(stays=profile.stays, patience=60))
    with Live(console=console, transient=True, refresh_per_second=2) as live:
        traffic.run(lambda: live.update(_progress(traffic, plant, len(shots))))
        while plant.samples[-1].open_exams:
            live.update(_progress(traffic, plant, len(shots)))
            time.sleep(0.5)
    return traffic.most_admitted


def _progress(traffic: Traffic, plant: Plant, count: int) -> Table:
    table = Table("seconds", "open associations", "acknowledged", "on their way", "memory, MB")
    if plant.samples:
        last = plant.samples[-1]
        table.add_row(
            f"{time.time() - traffic.begun:.0f}",
            str(traffic.admitted),
            f"{traffic.acknowledged} of {count}",
            str(last.open_exams),
            f"{last.total_mb:.0f}",
        )
    return table
