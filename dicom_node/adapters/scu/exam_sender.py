"""C-STORE SCU for files: several associations in parallel, one result per file."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association

from dicom_node.adapters.scu.association import (
    MAX_CONTEXTS,
    Peer,
    accepted_pairs,
    contexts_for,
    open_association,
    uid_name,
)
from dicom_node.domain.errors import NodeError
from dicom_node.headers import read_identity

DEFAULT_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one file. ``status`` is the C-STORE response's, None when none came; then
    ``error`` says why. Seconds from the request to the response."""

    path: Path
    status: int | None = None
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    pair: tuple[str, str]


def send_files(
    paths: Sequence[Path],
    peer: Peer,
    *,
    calling_ae_title: str,
    associations: int = 1,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> Iterator[Sent]:
    """Send every file as it is, in its own transfer syntax; yield one result per file as it comes.

    A file that cannot be read or sent does not stop the others. Where the peer admits fewer
    associations than asked for, those that stand do the work; files are given up only when none
    does.
    """
    files: list[_File] = []
    for path in paths:
        try:
            files.append(_File(path=path, pair=_pair(path)))
        except NodeError as error:
            yield Sent(path=path, error=str(error))
    for group in _groups(files):
        yield from _Batch(
            group, peer, calling_ae_title=calling_ae_title, timeout_seconds=timeout_seconds
        ).run(associations)


def _pair(path: Path) -> tuple[str, str]:
    identity = read_identity(path)
    return identity.sop_class_uid, identity.transfer_syntax_uid


def _groups(files: Sequence[_File]) -> list[list[_File]]:
    """Files whose contexts fit into one association each."""
    pairs = list(dict.fromkeys(file.pair for file in files))
    group_of = {pair: index // MAX_CONTEXTS for index, pair in enumerate(pairs)}
    groups: dict[int, list[_File]] = {}
    for file in files:
        groups.setdefault(group_of[file.pair], []).append(file)
    return list(groups.values())


class _Batch:
    """Files that share their presentation contexts, worked off by several threads."""

    def __init__(
        self, files: Sequence[_File], peer: Peer, *, calling_ae_title: str, timeout_seconds: float
    ) -> None:
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._timeout_seconds = timeout_seconds
        self._pairs = list(dict.fromkeys(file.pair for file in files))
        self._count = len(files)
        self._waiting: queue.SimpleQueue[_File] = queue.SimpleQueue()
        for file in files:
            self._waiting.put(file)
        self._results: queue.SimpleQueue[Sent | None] = queue.SimpleQueue()
        """What was sent; None when a thread ends."""
        self._stop = threading.Event()
        self._cause = ""
        """Why a thread could not open an association."""

    def run(self, associations: int) -> Iterator[Sent]:
        """Yield the results; when the caller stops listening, the threads stop too."""
        threads = min(associations, self._count)
        for number in range(threads):
            threading.Thread(target=self._work, name=f"sender-{number}", daemon=True).start()
        try:
            while threads:
                sent = self._results.get()
                if sent is None:
                    threads -= 1
                else:
                    yield sent
        finally:
            self._stop.set()
        while not self._waiting.empty():
            yield Sent(path=self._waiting.get().path, error=self._cause)

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and not self._waiting.empty():
                association = open_association(
                    self._peer,
                    contexts_for(self._pairs),
                    calling_ae_title=self._calling_ae_title,
                    timeout_seconds=self._timeout_seconds,
                )
                self._send_all(association)
        except NodeError as error:
            self._cause = str(error)
        finally:
            self._results.put(None)

    def _send_all(self, association: Association) -> None:
        """Send until nothing waits or the association ends."""
        accepted = accepted_pairs(association)
        while association.is_established and not self._stop.is_set():
            try:
                file = self._waiting.get_nowait()
            except queue.Empty:
                break
            self._results.put(self._send(association, file, accepted))
        association.release()

    def _send(
        self, association: Association, file: _File, accepted: frozenset[tuple[str, str]]
    ) -> Sent:
        if file.pair not in accepted:
            sop_class, syntax = map(uid_name, file.pair)
            return Sent(path=file.path, error=f"{self._peer} does not accept {sop_class}, {syntax}")
        begun = time.monotonic()
        try:
            status = association.send_c_store(file.path).get("Status")
        except (AttributeError, OSError, RuntimeError, ValueError) as error:
            return Sent(path=file.path, error=f"cannot be sent ({type(error).__name__})")
        seconds = time.monotonic() - begun
        if status is None:
            return Sent(path=file.path, seconds=seconds, error=f"{self._peer} gave no answer")
        return Sent(path=file.path, status=int(status), seconds=seconds)
