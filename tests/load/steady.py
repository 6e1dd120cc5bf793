"""``python -m tests.load.steady --exams 50000``: whether a node stays as it is for as many exams.

Stations send the next exam as soon as fewer than eight are on their way, so that the node always
has work and never a queue. Exams are taken a thousand at a time, in the order of their reports: of
each thousand the rate, the percentiles, the CPU time of an exam and the memory. A host whose
processors become slower or faster meanwhile is no growth: a computation that never changes is timed
beside the load, and the first and the last fifth are compared by it.

Images are small (164 kB) and no two exams have the same pixels. Writes `build/load/steady.json` and
`steady.png`; ends with 1 when something grows or a promise is broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.load.films import films
from tests.load.outcome import BUILD, Outcome, outcome_of, percentiles, show
from tests.load.plant import Fate, Plant, Sample, running_plant
from tests.load.simulate import growth_mb
from tests.load.traffic import Manner, Shot, Traffic
from tests.peers.held import cpu_seconds

ROWS, COLUMNS = 320, 256
ON_THEIR_WAY = 8
STATIONS = 8
WINDOW = 1000
WARM_UP = 32
SAMPLE_SECONDS = 2.0
DRAIN_SECONDS = 300.0
PATIENCE_SECONDS = 120.0
MAX_RATIO = 1.25
"""Of the last fifth to the first: rate, P95 and CPU time."""
MAX_GROWTH_MB = 80.0
_PROBE = bytes(4_000_000)


class Turns:
    """Lets exams begin while fewer than ``most`` are in the node or on their way into it."""

    def __init__(
        self,
        ended: Callable[[], int],
        *,
        most: int = ON_THEIR_WAY,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """``ended``: how many exams the node is done with."""
        self._ended, self._most, self._patience = ended, most, patience
        self._begun, self._turn = ended(), threading.Lock()

    def take(self) -> None:
        """Wait for a turn. Raises ``TimeoutError`` when no exam ends any more."""
        with self._turn:
            before, deadline = self._ended(), time.monotonic() + self._patience
            while self._begun - (ended := self._ended()) >= self._most:
                if ended != before:
                    before, deadline = ended, time.monotonic() + self._patience
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no exam has ended for {self._patience:.0f} s")
                time.sleep(0.005)
            self._begun += 1


@dataclass(frozen=True, kw_only=True)
class Look:
    """At a moment: CPU time that the node has used, and how long the probe took."""

    at: float
    cpu: float
    probe: float


@dataclass(frozen=True, kw_only=True)
class Window:
    """Exams that were reported one after the other. Times in seconds."""

    exams: int
    per_second: float
    store_p95: float
    end_to_end_p50: float
    end_to_end_p95: float
    cpu_per_exam: float
    memory_mb: float
    probe: float


def windows_of(
    shots: Sequence[Shot],
    fates: Mapping[str, Fate],
    samples: Sequence[Sample],
    looks: Sequence[Look],
    *,
    size: int = WINDOW,
) -> list[Window]:
    """Full ones only."""
    reported = sorted(
        (at, shot)
        for shot in shots
        if (fate := fates.get(shot.sop_instance_uid)) and (at := fate.reported_at) is not None
    )
    times = [look.at for look in looks]
    begin, found = min((shot.begun for shot in shots), default=0.0), []
    for first in range(0, len(reported) - size + 1, size):
        some = reported[first : first + size]
        end = some[-1][0]
        used = np.interp([begin, end], times, [look.cpu for look in looks])
        nearby = [look.probe for look in looks if begin <= look.at <= end]
        took = percentiles([at - shot.begun for at, shot in some])
        store = percentiles([shot.seconds for _, shot in some])
        found.append(
            Window(
                exams=first + size,
                per_second=size / (end - begin),
                store_p95=store["p95"] or 0.0,
                end_to_end_p50=took["p50"] or 0.0,
                end_to_end_p95=took["p95"] or 0.0,
                cpu_per_exam=float(used[1] - used[0]) / size,
                memory_mb=max((s.total_mb for s in samples if begin <= s.at <= end), default=0.0),
                probe=median(nearby or [look.probe for look in looks]),
            )
        )
        begin = end
    return found


@dataclass(frozen=True, kw_only=True)
class Steady:
    """What came of it. Ratios: the last fifth of the windows to the first, by the probe."""

    outcome: Outcome
    windows: list[Window]
    growth_mb: float

    @property
    def ratios(self) -> dict[str, float]:
        """1 where nothing changes, more where it becomes slower."""
        share = max(1, len(self.windows) // 5)
        first, last = self.windows[:share], self.windows[-share:]

        def grown(value: Callable[[Window], float]) -> float:
            return median(map(value, last)) / median(map(value, first))

        return {
            "time between reports": grown(lambda w: 1 / (w.per_second * w.probe)),
            "end to end P95": grown(lambda w: w.end_to_end_p95 / w.probe),
            "CPU time of an exam": grown(lambda w: w.cpu_per_exam / w.probe),
        }

    def broken_promises(self) -> list[str]:
        """In words; none when all is well."""
        broken = self.outcome.broken_promises()
        broken += [
            f"{what} became {ratio:.2f} times as long"
            for what, ratio in (self.ratios if self.windows else {}).items()
            if ratio > MAX_RATIO
        ]
        if self.growth_mb > MAX_GROWTH_MB:
            broken.append(f"memory grew by {self.growth_mb:.0f} MB")
        return broken


@contextmanager
def looking(plant: Plant) -> Iterator[list[Look]]:
    """Look again and again for the time of the block."""
    stop, looks = threading.Event(), list[Look]()

    def look() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            begun = time.thread_time()
            hashlib.sha256(_PROBE).digest()
            probe = time.thread_time() - begun
            looks.append(
                Look(at=time.time(), cpu=sum(cpu_seconds(plant.node).values()), probe=probe)
            )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        stop.set()
        thread.join()


def run(folder: Path, *, exams: int, console: Console, window: int = WINDOW) -> Steady:
    """Send them and wait for their reports."""
    some = films(16, rows=ROWS, columns=COLUMNS)
    shots = [
        Shot(number=number, film=some[number % len(some)], run=time.time_ns(), due=0.0)
        for number in range(1, exams + WARM_UP + 1)
    ]
    titles = [f"STATION-{number}" for number in range(STATIONS)]
    with running_plant(folder) as plant:

        def send(part: list[Shot], watch: Callable[[], None] = lambda: None) -> None:
            turns = Turns(plant.ended)
            stations = [(title, part) for title in titles]
            manner = Manner(stays=True, patience=60)
            Traffic(plant.node.note["port"], stations, manner, turn=turns.take).run(watch)
            plant.node.wait_until_idle(DRAIN_SECONDS)

        send(shots[:WARM_UP])
        shots = shots[WARM_UP:]
        with (
            plant.watched(SAMPLE_SECONDS),
            looking(plant) as looks,
            Live(console=console, transient=True, refresh_per_second=1) as live,
        ):
            begun = time.time()
            send(shots, lambda: live.update(_progress(plant, exams, time.time() - begun)))
        fates = plant.fates()
    beginning = min(shot.begun for shot in shots)
    for shot in shots:
        shot.due = shot.begun - beginning
    return Steady(
        outcome=outcome_of("steady", shots, fates, plant.samples, associations=STATIONS),
        windows=windows_of(shots, fates, plant.samples, looks, size=window),
        growth_mb=round(growth_mb(plant.samples), 1),
    )


def _progress(plant: Plant, exams: int, seconds: float) -> Table:
    table = Table("seconds", "ended", "exams/s", "memory, MB")
    with suppress(IndexError):
        last, done = plant.samples[-1], plant.ended() - WARM_UP
        rate = done / max(seconds, 1.0)
        table.add_row(f"{seconds:.0f}", f"{done} of {exams}", f"{rate:.1f}", f"{last.total_mb:.0f}")
    return table


def tell(steady: Steady, console: Console, target: Path = BUILD / "load") -> None:
    """Print it, draw it and keep it."""
    show(steady.outcome, console)
    table = Table("exams", "exams/s", "P50, ms", "P95, ms", "CPU, ms", "memory, MB", "probe, ms")
    for window in _some(steady.windows):
        table.add_row(
            str(window.exams),
            f"{window.per_second:.1f}",
            *(f"{s * 1000:.0f}" for s in (window.end_to_end_p50, window.end_to_end_p95)),
            f"{window.cpu_per_exam * 1000:.0f}",
            f"{window.memory_mb:.0f}",
            f"{window.probe * 1000:.1f}",
        )
    console.print(table)
    if steady.windows:
        for what, ratio in steady.ratios.items():
            console.print(f"{what}: {ratio:.2f} (last fifth to first, by the probe)")
    console.print(f"growth of memory: {steady.growth_mb:.0f} MB")
    for broken in steady.broken_promises():
        console.print(f"BROKEN PROMISE: {broken}", style="bold red")
    target.mkdir(parents=True, exist_ok=True)
    kept = {
        **steady.outcome.as_json(),
        "windows": [asdict(window) for window in steady.windows],
        "ratios": steady.ratios if steady.windows else {},
        "growth_mb": steady.growth_mb,
        "broken": steady.broken_promises(),
    }
    (target / "steady.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    _draw(steady.windows, target / "steady.png")


def _some(windows: Sequence[Window]) -> Sequence[Window]:
    """Ten of them, the first and the last among these."""
    if len(windows) <= 10:
        return windows
    return [windows[round(n * (len(windows) - 1) / 9)] for n in range(10)]


def _draw(windows: Sequence[Window], path: Path) -> None:
    mpl.use("Agg")
    lines: dict[str, Callable[[Window], float]] = {
        "exams/s": lambda w: w.per_second,
        "end to end P95, ms": lambda w: w.end_to_end_p95 * 1000,
        "CPU of an exam, ms": lambda w: w.cpu_per_exam * 1000,
        "CPU of an exam, probes": lambda w: w.cpu_per_exam / w.probe,
        "memory, MB": lambda w: w.memory_mb,
    }
    figure, axes = plt.subplots(len(lines), 1, figsize=(9, 10), sharex=True, layout="constrained")
    for axis, (what, value) in zip(axes, lines.items(), strict=True):
        axis.plot([window.exams for window in windows], [value(window) for window in windows])
        axis.set_ylabel(what)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("exams")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """As many exams as told."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.steady", description=__doc__)
    parser.add_argument("--exams", type=int, default=50_000)
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="steady-") as folder:
        steady = run(Path(folder) / "plant", exams=given.exams, console=console)
    tell(steady, console)
    return 1 if steady.broken_promises() else 0


if __name__ == "__main__":
    sys.exit(main())
