"""A whole node as a subprocess: `dicom-node serve` on free ports with its own data folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.adapters.scu.association import Peer
from dicom_node.domain.job import JobState
from dicom_node.folders import Folders
from dicom_node.node import read_address, readiness
from dicom_node.settings import load_settings
from tests.integration.peers import open_files, wait_until

MOVING = (JobState.QUEUED, JobState.LEASED)
MARK = "NODE_OF_THIS_TEST"
"""Variable in the environment of a node and of all that it starts: its folder."""


class Node:
    """A running node."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.config = folder / "node.toml"
        self.settings = load_settings(self.config)
        self.process = process

    @property
    def note(self) -> dict[str, int]:
        """Pid and ports, as the node left them in its run folder."""
        return read_address(Folders(root=self.settings.node.data_dir))

    @property
    def peer(self) -> Peer:
        """Where it listens."""
        return Peer(host="127.0.0.1", port=self.note["port"], ae_title="BONEAGE")

    def wait_until_ready(self, seconds: float = 180.0) -> None:
        """Until /readyz says ok."""
        wait_until(
            lambda: self.process.poll() is not None or readiness(self.settings)["status"] == "ok",
            seconds=seconds,
        )
        assert self.process.poll() is None, (self.folder / "node.log").read_text()

    def children(self) -> list[int]:
        """Process ids of the supervisor's children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def named(self) -> dict[str, int]:
        """The supervisor's children: name, as ``worker-0``, to process id."""
        found = {}
        for pid in self.children():
            with contextlib.suppress(OSError, ValueError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[command[command.index(b"process") + 2].decode()] = pid
        return found

    def decoders(self) -> list[int]:
        """Process ids of the workers' decoding processes."""
        found = []
        for worker in self.children():
            for child in Path(f"/proc/{worker}/task/{worker}/children").read_text().split():
                if b"inference.decoding_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        return found

    def log(self) -> str:
        """All that it, and those before it in this folder, have logged."""
        return (self.folder / "node.log").read_text()

    def open_files(self) -> set[Path]:
        """What the supervisor has open."""
        return open_files(self.process.pid)

    def partial_files(self) -> list[Path]:
        """Objects that are being received, and notes that are being written."""
        data = self.settings.node.data_dir
        return [*(data / "spool" / "incoming").glob("*/*"), *(data / "run").rglob("*.part")]

    def survivors(self) -> list[int]:
        """Every process on this machine that a node of this folder has started, whoever its parent
        is now: the mark stands in its environment."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (folder / "environ").read_bytes()
                if mark in environment.split(b"\0"):  # empty for a zombie
                    found.append(int(folder.name))
        return found

    def ledger(self) -> OperatorLedger:
        """The operator's view of the ledger."""
        return OperatorLedger(self.settings.node.data_dir / "ledger.sqlite", SystemClock())

    def wait_until_idle(self, seconds: float) -> None:
        """Until no job is queued or leased."""
        ledger = self.ledger()
        try:
            wait_until(lambda: not _moving(ledger), seconds=seconds)
        finally:
            ledger.close()

    def command(self, *arguments: str) -> Any:
        """Run a dicom-node command on this node's configuration; its JSON output."""
        done = subprocess.run(
            [sys.executable, "-m", "dicom_node", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def get(self, path: str) -> str:
        """GET from its health port."""
        url = f"http://127.0.0.1:{self.note['metrics_port']}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def kill(self) -> None:
        """SIGKILL for the supervisor and everything it started, as at a power cut."""
        for pid in [*self.children(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; the exit code after the drain."""
        self.process.terminate()
        return self.process.wait(180)


def _moving(ledger: OperatorLedger) -> bool:
    depths = ledger.queue_depths()
    return any(count for (_, state), count in depths.items() if state in MOVING)


def write_config(
    folder: Path,
    destinations: Sequence[tuple[str, str, int]],
    *,
    node: str = "",
    extra: str = "",
    data_dir: Path | None = None,
) -> Path:
    """Write node.toml for free ports; ``destinations`` are (name, AE title, port) on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "[node]",
        "port = 0",
        "metrics_port = 0",
        f"data_dir = {json.dumps(str(data_dir or folder / 'data'))}",
        node,
        extra,
    ]
    for name, ae_title, port in destinations:
        lines += [
            "[[destinations]]",
            f'name = "{name}"',
            f'ae_title = "{ae_title}"',
            'host = "127.0.0.1"',
            f"port = {port}",
        ]
    path = folder / "node.toml"
    path.write_text("\n".join(lines))
    return path


def begin_node(folder: Path, **environment: str) -> Node:
    """Start a node on the configuration in ``folder``, without waiting for it."""
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node", "serve", "--config", str(folder / "node.toml")],
            stderr=log,
            env=os.environ | {MARK: str(folder)} | environment,
        )
    return Node(folder, process)


def start_node(folder: Path, **environment: str) -> Node:
    """Start a node on the configuration in ``folder`` and wait until it is ready."""
    node = begin_node(folder, **environment)
    try:
        node.wait_until_ready()
    except BaseException:
        node.kill()
        raise
    return node


@contextmanager
def running_node(folder: Path, **environment: str) -> Iterator[Node]:
    """A node for the time of a test; it must drain cleanly unless the test killed it."""
    node = start_node(folder, **environment)
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.stop()
        wait_until(lambda: node.survivors() == [])
    assert node.partial_files() == []
