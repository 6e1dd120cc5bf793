"""The file system for power cuts as a test sees it: mounted, told when the power goes, read out."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import pytest

from tests.faults.power_cut_disk import Change, Tree, changes_of
from tests.integration.peers import wait_until

_REPOSITORY = Path(__file__).resolve().parents[2]


class PowerCutFileSystem:
    """A mounted file system of its own process, as a test sees it."""

    def __init__(self, mountpoint: Path, process: subprocess.Popen[str]) -> None:
        self.mountpoint = mountpoint
        self._process = process
        self._turn = threading.Lock()

    def changes_so_far(self) -> int:
        """How many changes and syncs have come."""
        return int(self._ask("count 0").split()[0])

    def cut_power(self, *, after_changes: int = 0) -> None:
        """So many changes still come through; whoever makes another waits for ever."""
        self._ask(f"cut {after_changes}")

    def has_no_power(self) -> bool:
        """Whether the cut has come."""
        count, cut_at = self._ask("count 0").split()
        return cut_at != "None" and int(count) >= int(cut_at)

    def record(self, folder: Path) -> list[Change]:
        """All changes in their order."""
        path = folder / "changes.pickle"
        self._ask(f"save {path}")
        return list(pickle.loads(path.read_bytes()))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()


@contextmanager
def power_cut_file_system(
    folder: Path, *, held: Tree | None = None
) -> Iterator[PowerCutFileSystem]:
    """Mount one at ``folder/disk``, empty or with what an earlier one held after its power cut."""
    _need_fuse()
    mountpoint, start = folder / "disk", folder / "held.pickle"
    mountpoint.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.faults.power_cut_fs", str(mountpoint)]
    if held is not None:
        start.write_bytes(pickle.dumps(changes_of(held)))
        command.append(str(start))
    pipe, said = subprocess.PIPE, folder / "file-system.log"
    with said.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=_REPOSITORY
        )
    try:
        wait_until(lambda: process.poll() is not None or mountpoint.is_mount())
        _need_mount(process, said.read_text())
        yield PowerCutFileSystem(mountpoint, process)
    finally:
        process.kill()  # calls that wait fail now
        process.communicate()
        subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True)


def _need_mount(process: subprocess.Popen[str], said: str) -> None:
    if process.poll() is not None and "mount failed" in said:
        pytest.skip(f"FUSE may not mount here: {said.splitlines()[0]}")
    assert process.poll() is None, said


def _need_fuse() -> None:
    if not find_library("fuse3") and not find_library("fuse"):
        pytest.skip("libfuse is not installed: apt-get install fuse3 libfuse3-3")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/fuse cannot be used here ({error.strerror}): run as root, with FUSE")
