"""What a node holds on to: processes, threads, descriptors, files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.peers.node import Node


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
        partial_files=len(node.partial_files()),
    )


def cpu_seconds(node: Node) -> dict[int, float]:
    """User and system time of each process of a running node so far."""
    found = {}
    for pid in processes(node):
        with contextlib.suppress(OSError):
            found[pid] = cpu_seconds_of(pid)
    return found


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process so far. Raises ``OSError`` where there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_descriptors() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))
