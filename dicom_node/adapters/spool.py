"""Received objects on disk: synced before anybody is told that they are safe.

Layout: ``incoming/<receiver>/`` holds files that are still being received,
``objects/aa/<sha256>.dcm`` what is kept, ``leaving/`` what is just being removed. All shard folders
are made at start, so that keeping an object syncs one file and one folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BufferedReader
from pathlib import Path

from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.durable import sync_folder
from dicom_node.logs import log
from dicom_node.ports import KeptObject

_PREAMBLE_BYTES = 128
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of an fsync that pass when there is room again."""
_GROUP_LENGTH_TAG = bytes.fromhex("0200 0000") + b"UL" + (4).to_bytes(2, "little")
"""(0002,0000), VR UL, 4 bytes, Explicit VR Little Endian (PS3.10 7.1)."""


class DiskSpool:
    """The spool below ``root``, which must lie on one file system.

    Raises ``Transient`` (STORAGE_UNAVAILABLE) when the folders cannot be made durable.

    After an fsync that failed nothing is kept any more, by any process, until :meth:`sweep`: the
    kernel may have dropped what was written before, and a second fsync would say that all is well
    (Rebello A et al., Can Applications Recover from fsync Failures?, USENIX ATC 2020).
    """

    def __init__(self, root: Path) -> None:
        self.incoming = root / "incoming"
        """Every file in here belongs to one association."""
        self._objects, self._leaving = root / "objects", root / "leaving"
        self._failed, self._failed_mark = False, root / "failed"
        with _storage_errors():
            _make_durable_folders(root, self.incoming, self._objects, self._leaving)

    def incoming_of(self, receiver: str) -> Path:
        """The empty folder in :attr:`incoming` that a receiver process writes to: what an earlier
        process of that name left there when it died is removed. Raises ``Transient``
        (STORAGE_UNAVAILABLE)."""
        folder = self.incoming / receiver
        with _storage_errors():
            _remove(folder)
            folder.mkdir(mode=0o700)
        return folder

    def keep(self, partial: Path, *, content_sha256: str | None = None) -> KeptObject:
        """Make a received DICOM file durable: fsync, rename, fsync of the folder. Who has hashed
        its data set already says so, and it is not read again.

        ``partial`` lies in :attr:`incoming` and is consumed, also when this fails. Content that is
        kept already is replaced by its equal, which heals a damaged copy.

        Raises ``Transient`` (STORAGE_UNAVAILABLE) when the disk fails or has failed and
        ``Permanent`` (UNREADABLE_OBJECT) when the file meta information has no group length
        (PS3.10 7.1).
        """
        try:
            self._refuse_after_failure()
            with _storage_errors():
                return self._keep(partial, content_sha256)
        except (Transient, Permanent):
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _keep(self, partial: Path, content_sha256: str | None) -> KeptObject:
        with partial.open("rb") as file:
            content_sha256 = content_sha256 or _content_sha256(file)
            os.fchmod(file.fileno(), 0o600)
            with self._failing_for_good():
                os.fsync(file.fileno())
            size_bytes = os.fstat(file.fileno()).st_size
        kept = self.place(content_sha256)
        partial.replace(kept)
        with self._failing_for_good():
            sync_folder(kept.parent)
        return KeptObject(content_sha256=content_sha256, size_bytes=size_bytes)

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                self._failed = True
                with suppress(OSError):
                    self._failed_mark.touch()
                log("storage_failed", error=error)
            raise

    def _refuse_after_failure(self) -> None:
        with _storage_errors():
            failed = self._failed or self._failed_mark.exists()
        if failed:
            raise Transient(
                Fault.STORAGE_UNAVAILABLE,
                "the disk failed to make an object durable: nothing is received any more; check "
                "the disk (dmesg), then restart the node",
            )

    def path(self, content_sha256: str) -> Path:
        """Path of a kept DICOM file (PS3.10). Raises ``Permanent`` (CORRUPT_SPOOL) when it is
        missing."""
        path = self.place(content_sha256)
        if not path.is_file():
            raise Permanent(
                Fault.CORRUPT_SPOOL,
                f"object {content_sha256} is missing from the spool: have it sent again, "
                "then `dicom-node job retry ID`",
            )
        return path

    def verify(self, content_sha256: str) -> None:
        """Read a kept object again and compare its hash.

        Raises ``Permanent`` (CORRUPT_SPOOL) when it is missing or changed, ``Transient``
        (STORAGE_UNAVAILABLE) when it cannot be read.
        """
        with _storage_errors(), self.path(content_sha256).open("rb") as file:
            try:
                intact = _content_sha256(file) == content_sha256
            except Permanent:
                intact = False
        if not intact:
            raise Permanent(
                Fault.CORRUPT_SPOOL,
                f"object {content_sha256} has changed on the disk: have it sent again, "
                "then `dicom-node job retry ID`",
            )

    def arriving(self) -> Path:
        """A new, empty folder in :attr:`incoming`; :meth:`sweep` removes it."""
        with _storage_errors():
            return Path(tempfile.mkdtemp(prefix="restored-", dir=self.incoming))

    def put_back(self, source: Path, content_sha256: str) -> None:
        """Keep a file of :meth:`arriving` that was removed before.

        Raises as :meth:`keep`, and ``Permanent`` (ARCHIVE_DAMAGED) when it is not the same content.
        """
        with _storage_errors(), source.open("rb") as file:
            same = _content_sha256(file) == content_sha256
        if not same:
            raise Permanent(
                Fault.ARCHIVE_DAMAGED,
                f"the archive's copy of object {content_sha256} is another object: look for an "
                "older version of it in the archive",
            )
        self.keep(source)

    def remove(self, content_sha256: str, *, since: datetime) -> bool:
        """Remove an object, unless it has arrived again since then.

        It is first taken out of the way: what arrives while this runs is another file, and stays.
        Raises ``Transient`` (STORAGE_UNAVAILABLE).
        """
        kept, leaving = self.place(content_sha256), self._leaving / f"{content_sha256}.dcm"
        with _storage_errors():
            try:
                kept.replace(leaving)
            except FileNotFoundError:
                return True
            if leaving.stat().st_mtime >= since.timestamp():
                _return(leaving, kept)
                return False
            leaving.unlink()
            return True

    def sweep(self) -> frozenset[str]:
        """Remove what unfinished associations left behind; return the hashes of all kept objects.
        What was about to be removed is back.

        Only for start-up, before the first association: it would remove files being received. A
        failure of the disk is forgotten.
        """
        self._failed = False
        with _storage_errors():
            self._failed_mark.unlink(missing_ok=True)
            for left in self.incoming.iterdir():
                _remove(left)
            for left in self._leaving.iterdir():
                _return(left, self.place(left.stem))
            return frozenset(path.stem for path in self._objects.glob("??/*.dcm"))

    def usage_percent(self) -> float:
        """How full the spool's file system is, 0 to 100. Raises ``Transient``
        (STORAGE_UNAVAILABLE) when the disk does not answer or has failed."""
        self._refuse_after_failure()
        with _storage_errors():
            usage = shutil.disk_usage(self._objects)
        return 100.0 * usage.used / (usage.used + usage.free)

    def place(self, content_sha256: str) -> Path:
        """Where an object lies, or would."""
        return self._objects / content_sha256[:2] / f"{content_sha256}.dcm"


def _content_sha256(file: BufferedReader) -> str:
    """SHA-256 of the data set behind preamble, prefix and file meta information (PS3.10 7.1)."""
    head = file.read(_PREAMBLE_BYTES + 4 + 12)
    prefix, tag, length = head[128:132], head[132:140], head[140:144]
    if prefix != b"DICM" or tag != _GROUP_LENGTH_TAG or len(length) < 4:
        raise Permanent(
            Fault.UNREADABLE_OBJECT,
            "a received file does not start with DICM and the file meta group length",
        )
    file.seek(int.from_bytes(length, "little"), os.SEEK_CUR)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left)
    else:
        left.unlink(missing_ok=True)


def _return(leaving: Path, kept: Path) -> None:
    """Back to its place, unless the same content has arrived there meanwhile."""
    with suppress(FileExistsError):
        kept.hardlink_to(leaving)
    leaving.unlink()
    sync_folder(kept.parent)


def _make_durable_folders(root: Path, incoming: Path, objects: Path, leaving: Path) -> None:
    shards = [objects / f"{shard:02x}" for shard in range(256)]
    for folder in (root, incoming, leaving, objects, *shards):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (objects, root, root.resolve().parent):
        sync_folder(folder)


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Transient(
            Fault.STORAGE_UNAVAILABLE,
            f"the spool's disk failed ({error.strerror}): check its free space and its health",
        ) from error
