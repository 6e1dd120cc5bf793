"""What pynetdicom writes a received data set to, so that a full disk is answered and not only
felt."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO


class IncomingFile:
    """Stands for ``tempfile.NamedTemporaryFile`` in pynetdicom's receiving code.

    Where the disk takes no more, the rest of the data set is dropped and ``lost`` is true: the
    handler then answers with a status. pynetdicom's own thread would die of the error and close
    the connection without a word.
    """

    def __init__(self, *, delete: bool, mode: str, suffix: str) -> None:
        self.lost = False
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

    def write(self, data: bytes) -> int:
        """Write, or drop what cannot be written."""
        if self._file is not None and not self.lost:
            try:
                self._file.write(data)
            except OSError:
                self.lost = True
        return len(data)

    def flush(self) -> None:
        """Bring it to the file system, which may turn out to be full only now."""
        if self._file is not None and not self.lost:
            try:
                self._file.flush()
            except OSError:
                self.lost = True

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self.lost = True
