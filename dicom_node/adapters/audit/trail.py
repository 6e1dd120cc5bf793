"""Where a message is safe before anybody sends it: one durable file each, numbered in order."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node import metrics
from dicom_node.adapters.audit.message import Origin, as_syslog
from dicom_node.domain.audit import AuditMessage
from dicom_node.durable import sync_folder
from dicom_node.logs import log

_MAX_SEQUENCE = 2_147_483_647
"""RFC 5424 7.3.1; after it comes 1."""
_LOCK_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.01
_DIGITS = 10
_WAITING = "[0-9]*.msg"


@dataclass(frozen=True, kw_only=True)
class AuditFolders:
    """The places of the audit trail, below ``root``."""

    root: Path

    @property
    def queue(self) -> Path:
        """Messages that nobody has taken yet."""
        return self.root / "queue"

    @property
    def arriving(self) -> Path:
        """What open associations have brought."""
        return self.root / "arriving"

    @property
    def sequence(self) -> Path:
        """Number of the last message; also the lock of those who record."""
        return self.root / "sequence"

    @property
    def configuration(self) -> Path:
        """Hashes of the configuration of the last run."""
        return self.root / "configuration.json"


class NoTrail:
    """What an installation without audit has: nothing is recorded."""

    def record(self, message: AuditMessage) -> bool:
        """Do nothing, and say that all is well."""
        del message
        return True


class DiskTrail:
    """Records messages of one process in a folder that all processes of a node share.

    A message gets its number and its file under one lock, so that numbers are in order; a number
    whose message could not be written stays out, which a repository sees as a gap.
    """

    def __init__(self, folders: AuditFolders, origin: Origin) -> None:
        self._folders = folders
        self._origin = origin

    def record(self, message: AuditMessage) -> bool:
        """Put a message on stable storage: fsync, rename, fsync of the folder. It raises nothing:
        False, a log line and a metric say that the message is lost."""
        try:
            with self._numbered() as sequence:
                line = as_syslog(message, self._origin, sequence=sequence, process_id=os.getpid())
                self._write(f"{sequence:0{_DIGITS}d}.msg", line)
        except (OSError, ValueError) as error:
            log("audit_failed", error=error)
            metrics.audit_failed()
            return False
        return True

    @contextmanager
    def _numbered(self) -> Iterator[int]:
        """The next number, for as long as the lock is held."""
        self._make_folders()
        descriptor = os.open(self._folders.sequence, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            self._give_to_owner(descriptor)
            sequence = self._last(descriptor) % _MAX_SEQUENCE + 1
            os.pwrite(descriptor, b"%0*d\n" % (_DIGITS, sequence), 0)
            os.fsync(descriptor)
            yield sequence
        finally:
            os.close(descriptor)

    def _make_folders(self) -> None:
        for folder in (self._folders.root, self._folders.queue):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if os.geteuid() == 0:
                    owner = folder.parent.stat()
                    os.chown(folder, owner.st_uid, owner.st_gid)
                sync_folder(folder.parent)

    def _last(self, descriptor: int) -> int:
        """The last number; when the file was lost or damaged, that of the last waiting message."""
        try:
            return int(os.pread(descriptor, _DIGITS + 1, 0))
        except ValueError:
            return max((int(path.stem) for path in waiting(self._folders)), default=0)

    def _write(self, name: str, line: bytes) -> None:
        queue = self._folders.queue
        partial = queue / "unfinished"  # one at a time: the lock is held
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            self._give_to_owner(descriptor)
            file.write(line)
            file.flush()
            os.fsync(descriptor)
        partial.replace(queue / name)
        sync_folder(queue)

    def _give_to_owner(self, descriptor: int) -> None:
        """What root's commands record must be readable for the node."""
        if os.geteuid() == 0:
            owner = self._folders.root.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def waiting(folders: AuditFolders) -> list[Path]:
    """Files of the messages that nobody has taken yet, in order."""
    return sorted(folders.queue.glob(_WAITING))


def _lock(descriptor: int) -> None:
    """Raises ``TimeoutError``: a process that was stopped while it records must not stop others."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process holds the audit trail") from None
        time.sleep(_LOCK_POLL_SECONDS)
