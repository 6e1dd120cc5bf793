"""A file system (FUSE) that remembers the order of every change and sync, for power cuts.

``python -m tests.faults.power_cut_fs MOUNTPOINT`` serves it until it is unmounted. Commands come
line by line on standard input, answers go to standard output: see `power_cut_mount.py`.

SQLite's WAL works on it: the kernel keeps POSIX locks and flock itself when a FUSE file system does
not ask for them, and maps -shm out of its page cache, which all processes of the machine share.
"""

from __future__ import annotations

import errno
import os
import pickle
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mfusepy

from tests.faults.power_cut_disk import (
    ROOT,
    Change,
    Disk,
    File,
    Folder,
    Made,
    Named,
    Resized,
    Synced,
    Written,
)

_SYNC_SECONDS = 0.002
"""How long a sync takes: who does not wait for it is found out."""
_BLOCKS = 1 << 20


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Files:
    """The calls of a file system, on a :class:`Disk`; each change goes through ``change``."""

    use_ns = True

    def __init__(self, disk: Disk, change: Callable[[Change], None]) -> None:
        self._disk, self._change = disk, change
        self._next = max(disk.files) + 1

    def init_with_config(self, _connection: Any, config: Any) -> None:
        """Nothing is hidden, renamed or forgotten by libfuse."""
        config.hard_remove = config.kernel_cache = config.use_ino = 1

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, int]:
        """As stat(2) gives it."""
        inode = fh or self._inode(path or os.sep)
        found = self._disk.files[inode]
        size = len(found.content) if isinstance(found, File) else 0
        return {"st_mode": found.mode, "st_nlink": 1, "st_size": size, "st_ino": inode}

    def readdir(self, _path: str | None, fh: int) -> list[str]:
        """Names in a folder."""
        return [".", "..", *self._disk.folder(fh).names]

    def opendir(self, path: str) -> int:
        """The folder's inode."""
        return self._inode(path)

    def open(self, path: str, flags: int) -> int:
        """The file's inode."""
        inode = self._inode(path)
        if flags & os.O_TRUNC:
            self._change(Resized(inode, 0))
        return inode

    def create(self, path: str, mode: int, _fi: Any = None) -> int:
        """A new file's inode."""
        return self._make(path, stat.S_IFREG | mode)

    def mkdir(self, path: str, mode: int) -> int:
        """A new folder; its parent knows its name, the disk does not yet."""
        self._make(path, stat.S_IFDIR | mode)
        return 0

    def read(self, _path: str | None, size: int, offset: int, fh: int) -> bytes:
        """Bytes of a file."""
        return bytes(self._disk.file(fh).content[offset : offset + size])

    def write(self, _path: str | None, data: bytes, offset: int, fh: int) -> int:
        """Written, not synced."""
        self._change(Written(fh, offset, data))
        return len(data)

    def truncate(self, path: str, length: int) -> int:
        """Resized, not synced."""
        self._change(Resized(self._inode(path), length))
        return 0

    def fsync(self, path: str | None, _datasync: int, fh: int) -> int:
        """The file's bytes are on the disk, after a while."""
        time.sleep(_SYNC_SECONDS)
        self._change(Synced(fh, path or ""))
        return 0

    def fsyncdir(self, path: str | None, _datasync: int, fh: int) -> int:
        """The folder's names are on the disk, after a while."""
        time.sleep(_SYNC_SECONDS)
        self._change(Synced(fh, path or ""))
        return 0

    def link(self, target: str, source: str) -> int:
        """A second name."""
        self._named(target, self._inode(source))
        return 0

    def rename(self, old: str, new: str) -> int:
        """The new name, and the old one gone: two folders, two syncs."""
        self._named(new, self._inode(old))
        self._named(old, None)
        return 0

    def unlink(self, path: str) -> int:
        """The name is gone; whoever has the file open goes on."""
        self._inode(path)
        self._named(path, None)
        return 0

    def rmdir(self, path: str) -> int:
        """Only an empty folder."""
        if self._folder(path).names:
            raise _error(errno.ENOTEMPTY)
        return self.unlink(path)

    def chmod(self, path: str, mode: int) -> int:
        """Modes are not what is lost here."""
        self._disk.files[self._inode(path)].mode = mode
        return 0

    def chown(self, _path: str | None, _uid: int, _gid: int) -> int:
        """Owners are not kept."""
        return 0

    def utimens(self, _path: str | None, _times: Any = None) -> int:
        """Times are not kept."""
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        """A large, nearly empty disk."""
        free = {"f_bavail": _BLOCKS, "f_bfree": _BLOCKS, "f_ffree": _BLOCKS}
        sizes = {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}
        return {**free, **sizes, "f_blocks": 2 * _BLOCKS, "f_files": 2 * _BLOCKS}

    def _inode(self, path: str) -> int:
        inode = ROOT
        for name in Path(path).parts[1:]:
            folder = self._disk.files[inode]
            if not isinstance(folder, Folder) or name not in folder.names:
                raise _error(errno.ENOENT)
            inode = folder.names[name]
        return inode

    def _folder(self, path: str) -> Folder:
        return self._disk.folder(self._inode(path))

    def _named(self, path: str, inode: int | None) -> None:
        parent, name = os.path.split(path)
        self._change(Named(self._inode(parent), name, inode))

    def _make(self, path: str, mode: int) -> int:
        inode, self._next = self._next, self._next + 1
        self._change(Made(inode, mode))
        self._named(path, inode)
        return inode


class Recorder:
    """Every change in its order, until the power goes."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.changes: list[Change] = []
        self._cut_at: int | None = None
        self._lock, self._never = threading.Lock(), threading.Event()

    def change(self, change: Change) -> None:
        """Apply a change; after a power cut nothing returns any more."""
        with self._lock:
            cut = self._cut_at is not None and len(self.changes) >= self._cut_at
            if not cut:
                self.changes.append(change)
                self._disk.apply(change)
        if cut:
            self._never.wait()

    def answer(self, command: str, argument: str) -> str:
        """One command of the test."""
        with self._lock:
            if command == "cut":
                self._cut_at = len(self.changes) + int(argument)
            elif command == "save":
                Path(argument).write_bytes(pickle.dumps(self.changes))
            return f"{len(self.changes)} {self._cut_at}"


def _serve(mountpoint: str, held: str | None) -> None:
    disk = Disk()
    for change in pickle.loads(Path(held).read_bytes()) if held else ():
        disk.apply(change)
    recorder = Recorder(disk)

    def listen() -> None:
        for line in sys.stdin:
            print(recorder.answer(*line.split()), flush=True)  # noqa: T201 the protocol

    threading.Thread(target=listen, daemon=True).start()
    mfusepy.FUSE(Files(disk, recorder.change), mountpoint, foreground=True, nothreads=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
