"""The audit trail as files: one a day, one syslog line a message."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from dicom_node.durable import sync_folder

_BLOCK_BYTES = 65_536
_TIMESTAMP = re.compile(rb"<\d+>1 (\d{4}-\d\d-\d\d)T")


class LogFiles:
    """Appends messages to ``YYYY-MM-DD.log`` below ``folder``, by their own day (UTC).

    A crash may leave half a line, or lines that are still in the queue: the half is cut off, and
    what stands there already is not written again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, lines: Sequence[bytes]) -> None:
        """Bring lines (without ends, in order) to stable storage. Raises ``OSError``."""
        for day, group in groupby(lines, key=_day):
            self._append(self._folder / f"{day}.log", [line + b"\n" for line in group])
        sync_folder(self._folder)

    def _append(self, path: Path, lines: list[bytes]) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            end = _end_of_last_line(descriptor)
            file.truncate(end)
            begin = max(0, end - sum(map(len, lines)))
            present = os.pread(descriptor, end - begin, begin).splitlines(keepends=True)
            file.seek(end)
            file.write(b"".join(line for line in lines if line not in present))
            file.flush()
            os.fsync(descriptor)


def _day(line: bytes) -> str:
    """The date of the syslog header's TIMESTAMP; a line that the disk damaged is kept apart."""
    found = _TIMESTAMP.match(line)
    return found[1].decode("ascii") if found else "damaged"


def _end_of_last_line(descriptor: int) -> int:
    """Offset behind the last line end; 0 without one."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
