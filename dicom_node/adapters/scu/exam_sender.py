"""C-STORE SCU for files: several associations in parallel, one result per file."""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import time
import uuid
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
from dicom_node.adapters.scu.renewed import write_renewed
from dicom_node.domain.errors import NodeError
from dicom_node.headers import read_identity

DEFAULT_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one object. ``status`` is the C-STORE response's, None when none came; then
    ``error`` says why. Seconds from the request to the response; late: how much later than its
    rate said the request went out."""

    path: Path
    status: int | None = None
    seconds: float = 0.0
    late_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How often and how fast files are sent. ``repeat``: so many times each, None for no end;
    more than once, or without end, they go under new UIDs, each time as exams of their own.
    ``rate``: objects a second, None for as fast as they are answered. ``seconds``: nothing begins
    later; needed where there is no end."""

    associations: int = 1
    repeat: int | None = 1
    rate: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.repeat is None and self.seconds is None:
            raise ValueError("without an end a duration is needed")


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    pair: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One file to be sent, at a monotonic time; with ``salt`` under new UIDs."""

    file: _File
    due: float
    salt: uuid.UUID | None


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
    load = Load(associations=associations)
    return send_load(
        paths, peer, load, calling_ae_title=calling_ae_title, timeout_seconds=timeout_seconds
    )


def send_load(
    paths: Sequence[Path],
    peer: Peer,
    load: Load,
    *,
    calling_ae_title: str,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> Iterator[Sent]:
    """As :func:`send_files`, as often and as fast as ``load`` says; one result for each object.

    All associations are opened at the start and kept open. Files of more kinds than one association
    can negotiate go one group after the other, each for its share of the time.
    """
    files: list[_File] = []
    for path in paths:
        try:
            files.append(_File(path=path, pair=_pair(path)))
        except NodeError as error:
            yield Sent(path=path, error=str(error))
    for group in _groups(files):
        yield from _Batch(
            group,
            peer,
            load,
            share=len(group) / len(files),
            calling_ae_title=calling_ae_title,
            timeout_seconds=timeout_seconds,
        ).run()


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
        self,
        files: Sequence[_File],
        peer: Peer,
        load: Load,
        *,
        share: float,
        calling_ae_title: str,
        timeout_seconds: float,
    ) -> None:
        self._files = files
        self._peer = peer
        self._load = load
        self._calling_ae_title = calling_ae_title
        self._timeout_seconds = timeout_seconds
        self._pairs = list(dict.fromkeys(file.pair for file in files))
        self._begun = time.monotonic()
        self._end = self._begun + share * load.seconds if load.seconds else None
        self._turns = self._all_turns()
        self._taking = threading.Lock()
        self._returned: list[_Turn] = []
        """Taken by threads whose association then ended, and got no other."""
        self._results: queue.SimpleQueue[Sent | None] = queue.SimpleQueue()
        """What was sent; None when a thread ends."""
        self._stop = threading.Event()
        self._cause = ""
        """Why a thread could not open an association."""

    def run(self) -> Iterator[Sent]:
        """Yield the results; when the caller stops listening, the threads stop too."""
        with tempfile.TemporaryDirectory(prefix="dicom-node-send-") as folder:
            threads = self._load.associations
            if self._load.repeat is not None:
                threads = min(threads, len(self._files) * self._load.repeat)
            for number in range(threads):
                threading.Thread(
                    target=self._work,
                    args=(Path(folder, f"{number}.dcm"),),
                    name=f"sender-{number}",
                    daemon=True,
                ).start()
            try:
                while threads:
                    sent = self._results.get()
                    if sent is None:
                        threads -= 1
                    else:
                        yield sent
            finally:
                self._stop.set()
        left = self._turns if self._load.repeat else ()
        for turn in (*self._returned, *left):
            yield Sent(path=turn.file.path, error=self._cause)

    def _all_turns(self) -> Iterator[_Turn]:
        """Round after round, until the time is over."""
        rounds = itertools.count() if self._load.repeat is None else range(self._load.repeat)
        numbers = itertools.count()
        for _ in rounds:
            salt = None if self._load.repeat == 1 else uuid.uuid4()
            for file in self._files:
                due = self._begun + (next(numbers) / self._load.rate if self._load.rate else 0.0)
                if self._end is not None and max(due, time.monotonic()) >= self._end:
                    return
                yield _Turn(file=file, due=due, salt=salt)

    def _take(self) -> _Turn | None:
        with self._taking:
            if self._stop.is_set():
                return None
            return self._returned.pop() if self._returned else next(self._turns, None)

    def _work(self, copy: Path) -> None:
        """Send until nothing is left, or nobody answers. ``copy``: where this thread may write."""
        try:
            association = self._open()
            while turn := self._take():
                self._stop.wait(turn.due - time.monotonic())
                if not association.is_established:
                    association = self._open_again(turn)
                if not self._stop.is_set():
                    self._results.put(self._send(association, turn, copy))
            association.release()
        except NodeError as error:
            self._cause = str(error)
        finally:
            self._results.put(None)

    def _open(self) -> Association:
        return open_association(
            self._peer,
            contexts_for(self._pairs),
            calling_ae_title=self._calling_ae_title,
            timeout_seconds=self._timeout_seconds,
        )

    def _open_again(self, turn: _Turn) -> Association:
        try:
            return self._open()
        except NodeError:
            self._returned.append(turn)
            raise

    def _send(self, association: Association, turn: _Turn, copy: Path) -> Sent:
        path = turn.file.path
        if turn.file.pair not in accepted_pairs(association):
            sop_class, syntax = map(uid_name, turn.file.pair)
            return Sent(path=path, error=f"{self._peer} does not accept {sop_class}, {syntax}")
        try:
            if turn.salt is not None:
                write_renewed(path, copy, turn.salt)
        except Exception as error:  # noqa: BLE001  hostile bytes raise anything in pydicom
            name = type(error).__name__
            return Sent(path=path, error=f"cannot be copied under new UIDs ({name})")
        begun = time.monotonic()
        late = begun - turn.due if self._load.rate else 0.0
        try:
            status = association.send_c_store(copy if turn.salt else path).get("Status")
        except (AttributeError, OSError, RuntimeError, ValueError) as error:
            return Sent(path=path, error=f"cannot be sent ({type(error).__name__})")
        seconds = time.monotonic() - begun
        if status is None:
            why = f"{self._peer} gave no answer"
            return Sent(path=path, seconds=seconds, late_seconds=late, error=why)
        return Sent(path=path, status=int(status), seconds=seconds, late_seconds=late)
