"""The clock of a node's processes, set by libfaketime (Debian: faketime) while they run."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="faketime is not installed")
SLEEPS = """
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    return syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0;
}
"""
"""libfaketime 0.9.10 takes the monotonic end of a sleep for one of the clock that it sets: EINVAL.
In front of it this leaves sleeping to the kernel."""


class FakeClock:
    """The clock of the processes that have :attr:`environment`; it runs, and can be set."""

    def __init__(self, folder: Path, *, zone: str = "UTC") -> None:
        folder.mkdir()
        self._file = folder / "clock"
        self.offset = timedelta()
        self.set(timedelta())
        self.environment = {
            "LD_PRELOAD": f"{compiled(folder, SLEEPS)}:{LIBRARY}",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": zone,
        }

    def set(self, offset: timedelta) -> None:
        """So much, in whole seconds, ahead of the machine's clock, from now on."""
        self.offset = timedelta(seconds=round(offset.total_seconds()))
        partial = self._file.with_suffix(".part")
        partial.write_text(f"{self.offset.total_seconds():+.0f}s\n")
        partial.replace(self._file)

    def now(self) -> datetime:
        """What the processes believe."""
        return datetime.now(UTC) + self.offset

    def fraction(self) -> float:
        """No chance, where the port Clock asks for it."""
        return 0.5


def compiled(folder: Path, code: str) -> Path:
    """A shared library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    (folder / "sleeps.c").write_text(code)
    library = folder / "sleeps.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "sleeps.c")]
    subprocess.run(command, check=True)
    return library
