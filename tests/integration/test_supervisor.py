"""The supervisor with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.adapters.bell import EventBell
from dicom_node.pulse import Pulse
from dicom_node.supervisor import SILENT_SECONDS, ProcessSpec, Supervisor, ready_path

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
def _starting(
    specs: list[ProcessSpec], run_dir: Path, *, silent_seconds: float = SILENT_SECONDS
) -> Iterator[tuple[Supervisor, list[str]]]:
    """A supervisor that has begun; it has ended when the context is left."""
    ended: list[str] = []
    supervisor = Supervisor(
        specs, run_dir=run_dir, ended=ended.append, silent_seconds=silent_seconds
    )
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(supervisor, stop))
    thread.start()
    try:
        yield supervisor, ended
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def _run(supervisor: Supervisor, stop: threading.Event) -> None:
    with supervisor.first_begun():
        supervisor.run(stop)


@contextmanager
def _running(
    specs: list[ProcessSpec], run_dir: Path, *, silent_seconds: float = SILENT_SECONDS
) -> Iterator[tuple[Supervisor, list[str]]]:
    """A supervisor whose processes are all ready."""
    with _starting(specs, run_dir, silent_seconds=silent_seconds) as (supervisor, ended):
        _wait_for(lambda: all(child.is_ready() for child in supervisor.children))
        yield supervisor, ended


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


_LATE = (
    """
import os, pathlib, time
here = pathlib.Path({ready!r}).parent
while not (here / "go").exists(): time.sleep(0.01)
"""
    + _SLEEPS
)


def test_what_stops_first_starts_first_and_the_rest_when_it_is_ready(tmp_path: Path) -> None:
    specs = [_spec(_SLEEPS, "worker", tmp_path, order=1), _spec(_LATE, "receiver", tmp_path)]
    with _starting(specs, tmp_path) as (supervisor, _):
        worker, receiver = supervisor.children
        _wait_for(lambda: receiver.pid is not None)
        time.sleep(0.5)
        early = worker.pid
        (tmp_path / "go").touch()
        _wait_for(lambda: worker.is_ready() and receiver.is_ready())
    assert early is None


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "raise SystemExit(3)"])
def test_what_never_gets_ready_holds_the_others_up_for_seconds_only(
    tmp_path: Path, code: str
) -> None:
    specs = [_spec(code, "receiver", tmp_path), _spec(_SLEEPS, "worker", tmp_path, order=1)]
    with _starting(specs, tmp_path) as (supervisor, _):
        _wait_for(supervisor.children[1].is_ready, seconds=20)


def test_a_stop_during_the_start_starts_nothing_more(tmp_path: Path) -> None:
    specs = [
        _spec("import time; time.sleep(60)", "receiver", tmp_path),
        _spec(_SLEEPS, "worker", tmp_path, order=1),
    ]
    with _starting(specs, tmp_path) as (supervisor, _):
        receiver, worker = supervisor.children
        _wait_for(lambda: receiver.pid is not None)
    assert (receiver.pid, worker.pid) == (None, None)


def test_a_process_that_does_not_stop_is_killed_after_its_grace_time(tmp_path: Path) -> None:
    with _running([_spec(_IGNORES, "stubborn", tmp_path, grace=0.2)], tmp_path) as (supervisor, _):
        pid = supervisor.children[0].pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_is_killed_again_and_again_runs_again_at_once(tmp_path: Path) -> None:
    """It had been ready each time: only what never gets so far waits longer and longer."""
    with _running([_spec(_SLEEPS, "one", tmp_path)], tmp_path) as (supervisor, _):
        [child] = supervisor.children
        for _ in range(5):
            _wait_for(child.is_ready)
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            _wait_for(lambda: child.pid is None)
        assert child._delay == 0.1


def test_what_has_begun_is_killed_where_it_does_not_come_to_running(tmp_path: Path) -> None:
    spec = _spec("import time; time.sleep(60)", "waiting", tmp_path)
    supervisor = Supervisor([spec], run_dir=tmp_path, ended=lambda _: None)
    begun: list[int | None] = []

    def fail() -> None:
        with supervisor.first_begun():
            begun.append(supervisor.children[0].pid)
            raise OSError("no model")

    with pytest.raises(OSError, match="no model"):
        fail()
    [pid] = begun
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_cannot_start_is_tried_again_with_growing_delay(tmp_path: Path) -> None:
    spec = _spec("raise SystemExit(3)", "broken", tmp_path)
    supervisor = Supervisor([spec], run_dir=tmp_path, ended=lambda _: None)
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(supervisor, stop))
    thread.start()
    begun = time.monotonic()
    _wait_for(lambda: supervisor.children[0].restarts >= 4)
    took = time.monotonic() - begun
    stop.set()
    thread.join(30)
    assert took > 0.2 + 0.4 + 0.8  # the delay doubles after each quick end


_BEATS = """
import os, time
from dicom_node.pulse import Heart
heart = Heart({pulse}, every_seconds=0.05)
open({ready!r}, "w").write(str(os.getpid()))
while True:
    time.sleep(0.01)
    if os.path.exists({stuck!r}): heart.watch(lambda: not os.path.exists({stuck!r}))
"""


@pytest.mark.parametrize("by", ["stopped", "stuck"])
def test_a_process_that_gives_no_sign_of_life_is_killed_and_runs_again(
    tmp_path: Path, by: str
) -> None:
    """Stopped as a whole, or alive with work that does not end; it then does not hear SIGTERM."""
    pulse, stuck = Pulse(), tmp_path / "stuck"
    code = _BEATS.replace("{pulse}", str(pulse.descriptor)).replace("{stuck!r}", repr(str(stuck)))
    spec = replace(
        _spec(code, "one", tmp_path), pulse=pulse, inherited=(pulse.descriptor,), grace_seconds=10
    )
    others = _spec(_SLEEPS, "without a pulse", tmp_path)
    with _running([spec, others], tmp_path, silent_seconds=3) as (supervisor, ended):
        child, other = supervisor.children
        first, kept = child.pid, other.pid
        assert first is not None
        _wait_for(lambda: pulse.silent_seconds == 0)
        if by == "stopped":
            os.kill(first, signal.SIGSTOP)
        else:
            stuck.touch()
        _wait_for(lambda: ended == ["one"])
        stuck.unlink(missing_ok=True)
        _wait_for(child.is_ready)
        assert child.pid != first
        assert other.pid == kept


def test_who_was_stopped_itself_takes_nobody_for_silent() -> None:
    """As when a machine or a container sleeps: its processes sleep as well."""
    pulse = Pulse()
    pulse.look()
    slept = time.monotonic() - 3600
    pulse._looked = slept
    pulse.look()
    assert pulse.silent_seconds <= 1.0 + 0.1
    os.close(pulse.descriptor)


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
