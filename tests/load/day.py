"""A day of twenty stations in five hospitals, and the accidents that happen on it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.load.films import Film
from tests.load.plant import Plant
from tests.load.traffic import Shot

HOURS = (1, 1, 1, 1, 1, 2, 4, 8, 14, 16, 15, 12, 6, 8, 12, 12, 10, 8, 6, 5, 4, 3, 2, 1)
"""How much of a day comes in each of its hours: a peak in the morning, a dip at lunch, quiet
nights."""
HOSPITALS, STATIONS = 5, 20
SAME_EVERY = 5
"""Every fifth exam has pixels that come again and again: its answer must not change."""
KINDS = ("receiver", "worker", "delivery", "archive")


def institutions() -> str:
    """The hospitals as configuration: four AE titles each."""
    blocks = [
        "\n".join(
            [
                "[[institutions]]",
                f'id = "hospital-{number}"',
                f'name = "Hospital {number}"',
                f"calling_ae_titles = {titles(number)}",
            ]
        )
        for number in range(HOSPITALS)
    ]
    return "\n".join(blocks).replace("'", '"')


def titles(hospital: int) -> list[str]:
    """Calling AE titles of one hospital's stations."""
    return [f"HOSP{hospital}_DX{n}" for n in range(STATIONS // HOSPITALS)]


def stations(
    some: Sequence[Film], *, exams: int, seconds: float, seed: int
) -> list[tuple[str, list[Shot]]]:
    """Who sends what and when, the day being over in ``seconds``; some stations are busier."""
    chance, run = random.Random(seed), time.time_ns()
    everybody = [title for hospital in range(HOSPITALS) for title in titles(hospital)]
    busy = [chance.uniform(0.5, 2.0) for _ in everybody]
    hours = chance.choices(range(len(HOURS)), HOURS, k=exams)
    dues = sorted((hour + chance.random()) * seconds / len(HOURS) for hour in hours)
    sent: dict[str, list[Shot]] = {title: [] for title in everybody}
    for number, due in enumerate(dues, 1):
        turn, rest = divmod(number, SAME_EVERY)
        as_drawn = rest == 0
        film = some[turn % len(some)] if as_drawn else chance.choice(some)
        shot = Shot(number=number, film=film, run=run, due=due, as_drawn=as_drawn)
        sent[chance.choices(everybody, busy)[0]].append(shot)
    return [(title, shots) for title, shots in sent.items() if shots]


@dataclass(frozen=True, kw_only=True)
class Accident:
    """What happens to whom, so many seconds after the beginning. ``away``: how long an archive is
    not there."""

    after: float
    kind: str
    away: float


def accidents(*, seconds: float, every: float, seed: int) -> list[Accident]:
    """Each kind comes once before any comes again; none at the very beginning and end."""
    chance = random.Random(seed)
    count = max(len(KINDS), round(seconds / every))
    kinds = [kind for _ in range(-(-count // len(KINDS))) for kind in chance.sample(KINDS, 4)]
    moments = sorted(chance.uniform(0.05, 0.9) * seconds for _ in range(count))
    return [
        Accident(after=after, kind=kind, away=chance.uniform(2, 10))
        for after, kind in zip(moments, kinds[:count], strict=True)
    ]


@contextmanager
def happening(plant: Plant, coming: Sequence[Accident]) -> Iterator[list[tuple[float, str]]]:
    """The accidents happen for the time of the block; yields what happened and when."""
    stop, begun = threading.Event(), time.time()
    happened: list[tuple[float, str]] = []

    def happen() -> None:
        for accident in coming:
            if stop.wait(max(0.0, begun + accident.after - time.time())):
                return
            happened.append((time.time(), _happen(plant, accident)))

    thread = threading.Thread(target=happen)
    thread.start()
    try:
        yield happened
    finally:
        stop.set()
        thread.join()


def _happen(plant: Plant, accident: Accident) -> str:
    if accident.kind == "archive":
        plant.archive.stop()
        time.sleep(accident.away)
        plant.archive.start()
        return "archive was away"
    chance = random.Random(accident.after)
    named = plant.node.named()
    victims = [pid for name, pid in sorted(named.items()) if name.startswith(accident.kind)]
    if victims:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
    return f"{accident.kind} killed"
