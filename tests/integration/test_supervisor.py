"""The supervisor with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.adapters.bell import EventBell
from dicom_node.supervisor import ProcessSpec, Supervisor, ready_path

_SLEEPS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open({ended!r}, "a").write({name!r} + " "), sys.exit(0)))
open({ready!r}, "w").write(str(os.getpid()))
while True: time.sleep(0.01)
"""
_IGNORES = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({ready!r}, "w").write(str(os.getpid()))
while True: time.sleep(0.01)
"""


def _spec(code: str, name: str, run_dir: Path, *, order: int = 0, grace: float = 10) -> ProcessSpec:
    values = {
        "name": name,
        "ready": str(ready_path(run_dir, name)),
        "ended": str(run_dir / "ended"),
    }
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-c", code.format(**values)),
        inherited=(),
        drain_order=order,
        grace_seconds=grace,
    )


@contextmanager
def _running(specs: list[ProcessSpec], run_dir: Path) -> Iterator[tuple[Supervisor, list[str]]]:
    ended: list[str] = []
    supervisor = Supervisor(specs, run_dir=run_dir, ended=ended.append)
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        _wait_for(lambda: all(child.is_ready() for child in supervisor.children))
        yield supervisor, ended
    finally:
        stop.set()
        thread.join(60)


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)


def test_a_killed_process_runs_again_and_is_ready_only_under_its_new_pid(tmp_path: Path) -> None:
    with _running([_spec(_SLEEPS, "one", tmp_path)], tmp_path) as (supervisor, ended):
        [child] = supervisor.children
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        _wait_for(lambda: child.restarts == 1 and child.is_ready())
        assert child.pid != first
        assert ended == ["one"]


def test_processes_stop_in_their_order(tmp_path: Path) -> None:
    specs = [
        _spec(_SLEEPS, "last", tmp_path, order=2),
        _spec(_SLEEPS, "first", tmp_path, order=0),
        _spec(_SLEEPS, "second", tmp_path, order=1),
    ]
    with _running(specs, tmp_path):
        pass
    assert (tmp_path / "ended").read_text().split() == ["first", "second", "last"]


def test_a_process_that_does_not_stop_is_killed_after_its_grace_time(tmp_path: Path) -> None:
    with _running([_spec(_IGNORES, "stubborn", tmp_path, grace=0.2)], tmp_path) as (supervisor, _):
        pid = supervisor.children[0].pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_start_is_tried_again_with_growing_delay(tmp_path: Path) -> None:
    spec = _spec("raise SystemExit(3)", "broken", tmp_path)
    supervisor = Supervisor([spec], run_dir=tmp_path, ended=lambda _: None)
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    begun = time.monotonic()
    _wait_for(lambda: supervisor.children[0].restarts >= 4)
    took = time.monotonic() - begun
    stop.set()
    thread.join(30)
    assert took > 0.2 + 0.4 + 0.8  # the delay doubles after each quick end


def test_a_ring_wakes_a_waiter_in_another_thread() -> None:
    bell = EventBell()
    woken = threading.Event()

    def wait() -> None:
        bell.wait(30)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    bell.ring()
    assert woken.wait(10)
    thread.join()


def test_a_wait_without_a_ring_ends_after_its_time() -> None:
    bell = EventBell()
    begun = time.monotonic()
    bell.wait(0.05)
    assert time.monotonic() - begun >= 0.04
