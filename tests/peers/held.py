"""What a node holds on to: processes, threads, descriptors, files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.peers.node import MARK, Node


@dataclass(frozen=True, kw_only=True)
class Held:
    """Of all processes of a node together."""

    resident_mb: float
    threads: int
    descriptors: int
    partial_files: int


def processes(node: Node) -> Iterator[int]:
    """The supervisor and everything below it."""
    waiting = [node.process.pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def held(node: Node) -> Held:
    """What a running node holds now."""
    pages = threads = descriptors = 0
    for pid in processes(node):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Held(
        resident_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        threads=threads,
        descriptors=descriptors,
        partial_files=len(partial_files(node)),
    )


def partial_files(node: Node) -> list[Path]:
    """Objects that are being received, and notes that are being written."""
    data = node.settings.node.data_dir
    return [*(data / "spool" / "incoming").glob("*/*"), *(data / "run").rglob("*.part")]


def survivors(node: Node) -> list[int]:
    """Every process on this machine that a node of this folder has started, whoever its parent is
    now: the mark stands in its environment."""
    mark = f"{MARK}={node.folder}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if mark in environment.split(b"\0") and _runs(folder):
                found.append(int(folder.name))
    return found


def _runs(folder: Path) -> bool:
    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    return state not in "ZX"
