"""What a disk holds after a power cut: pure bookkeeping of what was synced and what was not.

The rules are those that POSIX leaves a file system free to apply, not those of a kind one:

- what was written to a file since its last fsync may be there, wholly, in part (torn at sectors) or
  not at all, and in any order;
- a name that a folder got, lost or gave to another file is as it was at the folder's last fsync, or
  as it has been at any time since. An fsync of the file does not bring its name to the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

ROOT = 1
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Made:
    """A file or folder without a name."""

    inode: int
    mode: int


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file; they may lie behind its end."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """A file's new length."""

    inode: int
    size: int


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a folder now means this inode, or none."""

    folder: int
    name: str
    inode: int | None


@dataclass(frozen=True, slots=True)
class Synced:
    """An fsync of a file or folder; ``path`` is for people and for faults."""

    inode: int
    path: str


Change = Made | Written | Resized | Named | Synced


@dataclass
class Folder:
    """Names as they are, as they are on the disk, and what each has been since."""

    mode: int
    names: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    since: list[Named] = field(default_factory=list)

    def sync(self) -> None:
        """All names are on the disk."""
        self.synced, self.since = dict(self.names), []

    def survivors(self, chance: Random | None) -> dict[str, int]:
        """Names after a power cut; without ``chance`` nothing unsynced is there."""
        left = dict(self.synced)
        if chance is None:
            return left
        for name in {change.name for change in self.since}:
            states = [change.inode for change in self.since if change.name == name]
            inode = chance.choice([self.synced.get(name), *states])
            left.pop(name, None)
            if inode is not None:
                left[name] = inode
        return left


@dataclass
class File:
    """Content as it is, as it is on the disk, and the changes since."""

    mode: int
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[Written | Resized] = field(default_factory=list)

    def sync(self) -> None:
        """All bytes are on the disk."""
        if self.since:
            self.synced, self.since = bytes(self.content), []

    def survivor(self, chance: Random | None) -> bytes:
        """Content after a power cut; without ``chance`` nothing unsynced is there."""
        left = bytearray(self.synced)
        for change in self.since if chance is not None else ():
            assert chance is not None
            for part in _torn(change, chance):
                _change(left, part)
        return bytes(left)


def _torn(change: Written | Resized, chance: Random) -> Iterator[Written | Resized]:
    """All of a change, nothing of it, or some of its sectors."""
    fate = chance.choice(("whole", "lost", "torn"))
    if fate == "whole" or (fate == "torn" and isinstance(change, Resized)):
        yield change
    elif fate == "torn" and isinstance(change, Written):
        for at in range(0, len(change.data), _SECTOR_BYTES):
            if chance.random() < 0.5:
                data = change.data[at : at + _SECTOR_BYTES]
                yield Written(change.inode, change.offset + at, data)


def _change(content: bytearray, change: Written | Resized) -> None:
    match change:
        case Written(_, offset, data):
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
        case Resized(_, size):
            del content[size:]
            content.extend(bytes(size - len(content)))


Tree = dict[str, "tuple[int, bytes | Tree]"]
"""Name to mode and content."""


class Disk:
    """A file system's files, to which one change after the other is applied."""

    def __init__(self) -> None:
        self.files: dict[int, File | Folder] = {ROOT: Folder(stat.S_IFDIR | 0o700)}

    def folder(self, inode: int) -> Folder:
        """A folder by its inode."""
        found = self.files[inode]
        assert isinstance(found, Folder)
        return found

    def file(self, inode: int) -> File:
        """A file by its inode."""
        found = self.files[inode]
        assert isinstance(found, File)
        return found

    def apply(self, change: Change) -> None:
        """Bring the disk one step on."""
        match change:
            case Made(inode, mode):
                self.files[inode] = Folder(mode) if stat.S_ISDIR(mode) else File(mode)
            case Written(inode) | Resized(inode):
                file = self.file(inode)
                _change(file.content, change)
                file.since.append(change)
            case Named(folder, name, target):
                self._name(self.folder(folder), name, target)
                self.folder(folder).since.append(change)
            case Synced(inode):
                self.files[inode].sync()

    def _name(self, folder: Folder, name: str, inode: int | None) -> None:
        if inode is None:
            folder.names.pop(name, None)
        else:
            folder.names[name] = inode

    def after_power_cut(self, chance: Random | None = None) -> Tree:
        """What is found when the power is back: the synced part, and with ``chance`` some of the
        rest."""
        return self._tree(ROOT, chance, frozenset())

    def _tree(self, inode: int, chance: Random | None, above: frozenset[int]) -> Tree:
        tree: Tree = {}
        for name, target in sorted(self.folder(inode).survivors(chance).items()):
            found = self.files[target]
            if isinstance(found, File):
                tree[name] = (found.mode, found.survivor(chance))
            elif target not in above:  # a folder that was moved is nowhere within itself
                tree[name] = (found.mode, self._tree(target, chance, above | {inode}))
        return tree


def write_tree(tree: Tree, folder: Path) -> None:
    """Make the files of a tree below a folder that exists."""
    for name, (mode, content) in tree.items():
        path = folder / name
        if isinstance(content, dict):
            path.mkdir(mode=stat.S_IMODE(mode))
            write_tree(content, path)
        else:
            path.write_bytes(content)
            path.chmod(stat.S_IMODE(mode))


def changes_of(tree: Tree, inode: int = ROOT, numbers: Iterator[int] | None = None) -> list[Change]:
    """The changes that make a disk hold this tree, all of it synced."""
    numbers = numbers or iter(range(ROOT + 1, 1 << 31))
    changes: list[Change] = []
    for name, (mode, content) in tree.items():
        made = next(numbers)
        changes += [Made(made, mode), Named(inode, name, made)]
        if isinstance(content, dict):
            changes += changes_of(content, made, numbers)
        else:
            changes += [Written(made, 0, content), Synced(made, name)]
    return [*changes, Synced(inode, os.sep)]
