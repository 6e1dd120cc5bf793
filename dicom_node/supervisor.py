"""Starts the node's processes, restarts what dies, and stops them in order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.logs import log
from dicom_node.pulse import Pulse

_POLL_SECONDS = 0.1
_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_HEALTHY_SECONDS = 5.0
_HEAD_START_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""After so long without a beat a process hangs: imports and a busy machine take less."""


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process of the node. Lower ``drain_order`` stops first; the lowest starts first too."""

    name: str
    command: tuple[str, ...]
    inherited: tuple[int, ...]
    """File descriptors that the process takes over."""
    drain_order: int
    grace_seconds: float
    pulse: Pulse | None = None
    """Where its beats arrive; None: it has none, and is never taken for hanging."""


class Child:
    """A process that runs again whenever it ends."""

    def __init__(self, spec: ProcessSpec, ready_file: Path) -> None:
        self.spec = spec
        self.restarts = 0
        self._ready_file = ready_file
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._delay = _FIRST_DELAY_SECONDS

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def is_ready(self) -> bool:
        """Whether the running process has said that it is ready (its pid stands in its file)."""
        return self.pid is not None and self._said_ready(self.pid)

    def _said_ready(self, pid: int) -> bool:
        try:
            return int(self._ready_file.read_text()) == pid
        except (OSError, ValueError):
            return False

    def start(self) -> None:
        """Start the process; one that cannot start is tried again by :meth:`restart_when_due`."""
        self._started = time.monotonic()
        if self.spec.pulse is not None:
            self.spec.pulse.reset()
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                self.spec.command, pass_fds=self.spec.inherited, start_new_session=True
            )
        except OSError as error:  # no memory or no process left: the others go on
            log("process_not_started", process=self.spec.name, error=error)
            self._delay = min(_LONGEST_DELAY_SECONDS, self._delay * 2)
            return
        log("process_started", process=self.spec.name, pid=self._process.pid)

    def has_just_ended(self) -> bool:
        """Whether the process has ended since the last look; it is then gone."""
        if self._process is None or self._process.poll() is None:
            return False
        pid, code = self._process.pid, self._process.returncode
        self._process = None
        log("process_exited", process=self.spec.name, pid=pid, exit_code=code)
        lived = time.monotonic() - self._started
        healthy = lived > _HEALTHY_SECONDS or self._said_ready(pid)
        self._delay = (
            _FIRST_DELAY_SECONDS if healthy else min(_LONGEST_DELAY_SECONDS, self._delay * 2)
        )
        self._started = time.monotonic()
        return True

    def restart_when_due(self) -> None:
        """Start again once the delay since the end has passed."""
        if self._process is None and time.monotonic() - self._started >= self._delay:
            self.restarts += 1
            log("process_restarted", process=self.spec.name, count=self.restarts)
            self.start()

    def kill_if_silent(self, limit_seconds: float) -> None:
        """Kill a process that hangs: it then ends and is started again like any other."""
        if self._process is None or self.spec.pulse is None:
            return
        self.spec.pulse.look()
        if self.spec.pulse.silent_seconds > limit_seconds:
            seconds = self.spec.pulse.silent_seconds
            log("process_silent", process=self.spec.name, pid=self._process.pid, seconds=seconds)
            os.killpg(self._process.pid, signal.SIGKILL)
            self.spec.pulse.reset()  # one that the kernel holds may take its time to end

    def kill(self) -> None:
        """End the process at once, and wait until it has ended."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Ask for a drain; kill after the grace time."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self.spec.grace_seconds)
        except subprocess.TimeoutExpired:
            log("process_killed", process=self.spec.name, pid=self._process.pid)
            self.kill()


class Supervisor:
    """Keeps the processes of one node running.

    ``ended``: called with the name of every process that ended unasked. ``draining``:
    called before the first process is asked to stop. ``silent_seconds``: how long a process with a
    pulse may be silent before it is killed.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        run_dir: Path,
        ended: Callable[[str], None],
        draining: Callable[[], None] = lambda: None,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.children = [Child(spec, ready_path(run_dir, spec.name)) for spec in specs]
        self._ended = ended
        self._draining = draining
        self._silent_seconds = silent_seconds
        self._runs = False
        self.turned_at = time.monotonic()
        """When the loop last came round (monotonic seconds): the sign of life for /livez."""

    @contextmanager
    def first_begun(self) -> Iterator[None]:
        """Start those that stop first, for :meth:`run` to start the others and to watch them all.
        Where it does not come to that, they are killed: they wait, and hold nothing yet."""
        for child in self._first():
            child.start()
        try:
            yield
        except BaseException:
            if not self._runs:
                for child in self._first():
                    child.kill()
            raise

    def _first(self) -> list[Child]:
        first = min(child.spec.drain_order for child in self.children)
        return [child for child in self.children if child.spec.drain_order == first]

    def run(self, stop: threading.Event) -> None:
        """Watch everything until ``stop``; then drain by order.

        What has not begun follows once those are ready: processes that load their
        libraries at the same time make each other late, and the network does not wait.
        """
        self._runs = True
        started = self._first()
        later = [child for child in self.children if child not in started]
        begun = time.monotonic()
        while not stop.wait(_POLL_SECONDS):
            self.turned_at = time.monotonic()
            waited = self.turned_at - begun > _HEAD_START_SECONDS
            if later and (waited or all(child.is_ready() for child in started)):
                for child in later:
                    child.start()
                started, later = self.children, []
            for child in started:
                child.kill_if_silent(self._silent_seconds)
                if child.has_just_ended():
                    self._ended(child.spec.name)
                child.restart_when_due()
        self._drain()

    def _drain(self) -> None:
        log("drain_started")
        self._draining()
        for order in sorted({child.spec.drain_order for child in self.children}):
            group = [child for child in self.children if child.spec.drain_order == order]
            threads = [threading.Thread(target=child.stop) for child in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        log("drain_finished")


def leave_note(path: Path, text: str) -> None:
    """Write a note that a reader sees whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)


def ready_path(run_dir: Path, name: str) -> Path:
    """File in which a process writes its pid when it is ready."""
    return run_dir / f"{name}.ready"
