"""What the steady load makes of what it saw: windows, ratios, turns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.load.outcome import outcome_of
from tests.load.plant import Fate, Sample
from tests.load.steady import Look, Steady, Turns, tell, windows_of
from tests.load.test_load import film
from tests.load.traffic import Shot

SIZE = 10


def steady_of(
    *,
    took: Callable[[int], float] = lambda _: 0.5,
    probe: Callable[[float], float] = lambda _: 0.01,
    growth_mb: float = 0.0,
) -> Steady:
    """A hundred exams, each begun when the one before was reported. ``took``: from number to
    seconds; ``probe``: from time to seconds. Half of the time is CPU time."""
    shots, fates, samples, looks, now = [], {}, [], [Look(at=0.0, cpu=0.0, probe=probe(0.0))], 0.0
    for number in range(100):
        shot = Shot(number=number, film=film(), run=1, due=now)
        shot.begun, shot.seconds, shot.answers = now, 0.1, ["0x0000"]
        now += took(number)
        fate = Fate(outcome="assessed", months=100.0, parked=False)
        fate.stored_at = [now, now]
        shots.append(shot)
        fates[shot.sop_instance_uid] = fate
        resident = {"worker-0": 100.0 + number}
        samples.append(Sample(at=now, resident_mb=resident, exams=number, open_exams=0, waiting={}))
        looks.append(Look(at=now, cpu=now / 2, probe=probe(now)))
    return Steady(
        outcome=outcome_of("steady", shots, fates, samples, associations=1),
        windows=windows_of(shots, fates, samples, looks, size=SIZE),
        growth_mb=growth_mb,
    )


def test_a_window_has_the_figures_of_its_exams() -> None:
    windows = steady_of(took=lambda number: 0.5 if number < 50 else 1.0).windows
    assert [window.exams for window in windows] == list(range(SIZE, 101, SIZE))
    first, last = windows[0], windows[-1]
    assert [first.per_second, last.per_second] == pytest.approx([2.0, 1.0])
    assert [first.end_to_end_p95, last.end_to_end_p95] == pytest.approx([0.5, 1.0])
    assert [first.cpu_per_exam, last.cpu_per_exam] == pytest.approx([0.25, 0.5])
    assert (first.memory_mb, last.memory_mb) == (109.0, 199.0)


def test_exams_that_do_not_fill_a_window_are_left_out() -> None:
    steady = steady_of()
    assert len(steady.windows) == 10
    assert windows_of([], {}, [], [], size=SIZE) == []


def test_a_node_that_stays_as_it_is_breaks_nothing() -> None:
    steady = steady_of()
    assert list(steady.ratios.values()) == [pytest.approx(1.0)] * 3
    assert steady.broken_promises() == []


def test_a_node_that_becomes_slower_is_found() -> None:
    steady = steady_of(took=lambda number: 0.5 * (1 + number / 100))
    broken = steady.broken_promises()
    assert len(broken) == 3
    assert "end to end P95 became 1.7" in broken[1]


def test_a_host_that_becomes_slower_is_not_the_node() -> None:
    steady = steady_of(
        took=lambda number: 0.5 if number < 50 else 1.0,
        probe=lambda now: 0.01 if now < 25 else 0.02,
    )
    assert steady.broken_promises() == []


def test_memory_that_grows_is_found() -> None:
    assert steady_of(growth_mb=81).broken_promises() == ["memory grew by 81 MB"]


def test_what_was_found_is_kept_and_drawn(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=120)
    tell(steady_of(), console, tmp_path)
    kept = json.loads((tmp_path / "steady.json").read_text())
    assert len(kept["windows"]) == 10
    assert kept["ratios"]["CPU time of an exam"] == pytest.approx(1.0)
    assert (tmp_path / "steady.png").stat().st_size > 10_000
    assert isinstance(console.file, StringIO)
    assert "growth of memory: 0 MB" in console.file.getvalue()


def test_no_more_exams_begin_than_may_be_on_their_way() -> None:
    ended, begun = [0], []
    turns = Turns(lambda: ended[0], most=2)

    def station() -> None:
        for _ in range(3):
            turns.take()
            begun.append(time.monotonic())

    threads = [threading.Thread(target=station) for _ in range(2)]
    for thread in threads:
        thread.start()
    for done in range(5):
        while len(begun) < done + 2:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(begun) == done + 2
        ended[0] += 1
    for thread in threads:
        thread.join(10)
    assert len(begun) == 6


def test_a_node_that_ends_no_exam_any_more_is_not_waited_for() -> None:
    turns = Turns(lambda: 0, most=1, patience=0.05)
    turns.take()
    with pytest.raises(TimeoutError, match="no exam has ended"):
        turns.take()
