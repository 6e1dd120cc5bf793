"""What arrived and could not be understood, kept for a person to look at: ``<SHA-256>.dcm``.

Nobody was told that it is safe. So it is limited, the oldest goes first, and a disk that fails here
fails nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dicom_node.durable import sync_folder
from dicom_node.logs import log
from dicom_node.ports import KeptObject

MAX_FILES = 1000
MAX_BYTES = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Contents:
    """How much there is."""

    files: int
    bytes: int


class DiskQuarantine:
    """The port ``Quarantine`` on ``folder``, which lies on the file system of what arrives.

    Threads and processes share it.
    """

    def __init__(
        self, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES
    ) -> None:
        self.folder = folder
        self._max_files, self._max_bytes = max_files, max_bytes

    def keep(self, refused: Path) -> KeptObject | None:
        """Give the file a second name in here, whole or not at all; the first one stays. None when
        the disk does not take it."""
        try:
            kept = self._keep(refused)
            self._make_room()
        except OSError as error:
            log("quarantine_failed", error=error)
            return None
        return kept

    def contents(self) -> Contents:
        """What is kept now; nothing where nothing ever was."""
        sizes = [size for _, size, _ in self._files()]
        return Contents(files=len(sizes), bytes=sum(sizes))

    def arrived_before(self, at: datetime) -> int:
        """How many files arrived before then."""
        return len(self._before(at))

    def remove_before(self, at: datetime) -> int:
        """Remove what arrived before then; how many files that was."""
        found = self._before(at)
        for path in found:
            with suppress(FileNotFoundError):
                path.unlink()
        return len(found)

    def _before(self, at: datetime) -> list[Path]:
        end_ns = int(at.timestamp() * 1e9)
        return [path for arrived_ns, _, path in self._files() if arrived_ns < end_ns]

    def _keep(self, refused: Path) -> KeptObject:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with refused.open("rb") as file:
            content_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = os.fstat(file.fileno()).st_size
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
        kept = self.folder / f"{content_sha256}.dcm"
        try:
            kept.hardlink_to(refused)
        except FileExistsError:
            os.utime(kept)  # it came again: it is among the newest
        sync_folder(self.folder)
        return KeptObject(content_sha256=content_sha256, size_bytes=size_bytes)

    def _make_room(self) -> None:
        files = sorted(self._files())
        count, total = len(files), sum(size for _, size, _ in files)
        for _, size, path in files:
            if count <= self._max_files and total <= self._max_bytes:
                return
            with suppress(FileNotFoundError):  # another receiver was quicker
                path.unlink()
            count, total = count - 1, total - size

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Time of arrival (ns), size and path of each."""
        for path in self.folder.glob("*.dcm"):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path
