"""What pynetdicom writes a received data set to: a full disk is answered and not only felt, and no
file outlives its association."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

MAX_FILES = 4
"""Of one association: one in the handler, two that wait for it, one being received."""
_PIECE_BYTES = 512 * 1024
"""What the disk begins to write while the rest is still coming: less waits for the sync before the
answer."""

_GROUP_LENGTH_END = 128 + 4 + 12
"""Where the value of (0002,0000) ends (PS3.10 7.1)."""


class TooManyFiles(Exception):
    """A peer begins data sets that it does not end, or that nobody may handle."""


class IncomingFile:
    """Stands for ``tempfile.NamedTemporaryFile`` in pynetdicom's receiving code.

    Where the disk takes no more, the rest of the data set is dropped and ``lost`` is true: the
    handler then answers with a status. pynetdicom's own thread would die of the error and close
    the connection without a word. The file belongs to the :func:`collected_in` of its thread, which
    holds so many; more raise :class:`TooManyFiles`.
    """

    def __init__(self, *, delete: bool, mode: str, suffix: str) -> None:
        self.lost = False
        self._collection: list[IncomingFile] = getattr(_of_this_thread, "files", [])
        if len(self._collection) >= MAX_FILES:
            raise TooManyFiles
        self._collection.append(self)
        self._head: bytes | None = b""
        self._written = self._begun = 0
        self._sha256 = hashlib.sha256()
        self.name = str(Path(tempfile.gettempdir()) / f"lost{suffix}")
        self._file: IO[bytes] | None = None
        try:
            self._file = tempfile.NamedTemporaryFile(mode, delete=delete, suffix=suffix)  # noqa: SIM115
            self.name = self._file.name
        except OSError:
            self.lost = True

    @property
    def file(self) -> IncomingFile:
        """Pynetdicom flushes the file below."""
        return self

    def write(self, data: bytes | memoryview) -> int:
        """Write, or drop what cannot be written."""
        if self._file is not None and not self.lost:
            try:
                self._file.write(data)
                self._begin_to_disk(self._file.fileno(), len(data))
                self._hash(data)
            except OSError:
                self.lost = True
        return len(data)

    def _begin_to_disk(self, descriptor: int, count: int) -> None:
        """Have whole pieces written: Linux begins to write what this advice names and drops only
        what is on the disk already (mm/fadvise.c). An error of that is told by the sync: the file
        stays open until then."""
        self._written += count
        ready = self._written - self._begun
        if ready >= _PIECE_BYTES:
            with suppress(OSError):  # a file system that knows no advice
                os.posix_fadvise(descriptor, self._begun, ready, os.POSIX_FADV_DONTNEED)
            self._begun = self._written

    @property
    def content_sha256(self) -> str | None:
        """Of the data set, as far as it was written; None before it begins."""
        return self._sha256.hexdigest() if self._head is None else None

    def _hash(self, data: bytes | memoryview) -> None:
        """What is behind preamble, prefix and file meta information (PS3.10 7.1)."""
        if self._head is not None:
            self._head += data
            end = _GROUP_LENGTH_END + int.from_bytes(self._head[140:_GROUP_LENGTH_END], "little")
            if len(self._head) < max(end, _GROUP_LENGTH_END + 1):
                return
            data, self._head = self._head[end:], None
        self._sha256.update(data)

    def flush(self) -> None:
        """Bring it to the file system, which may turn out to be full only now."""
        if self._file is not None and not self.lost:
            try:
                self._file.flush()
            except OSError:
                self.lost = True

    def close(self) -> None:
        """Close the file; it stays where it is and belongs to whoever closed it."""
        with suppress(ValueError):
            self._collection.remove(self)
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self.lost = True

    def remove(self) -> None:
        """Close the file and delete it."""
        self.close()
        with suppress(OSError):
            Path(self.name).unlink()


_of_this_thread = threading.local()


@contextmanager
def collected_in(files: list[IncomingFile]) -> Iterator[None]:
    """What this thread makes meanwhile stands in ``files`` until it is closed."""
    _of_this_thread.files = files
    try:
        yield
    finally:
        del _of_this_thread.files
