"""Who sends what and when: threads with an association each, and what they saw."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.load.films import Film, uid
from tests.load.modality import Modality

_ECHO_SECONDS = 25.0
"""Before the node takes a silent association for dead."""
_AGAIN_SECONDS = 0.5


@dataclass(kw_only=True)
class Shot:
    """One exam on its way to the node. Times are of the wall clock."""

    number: int
    film: Film
    run: int
    due: float
    """Seconds after the beginning."""
    as_drawn: bool = False
    begun: float = 0.0
    """Of the first attempt."""
    seconds: float = 0.0
    """From request to response, of the attempt that was acknowledged."""
    answers: list[str] = field(default_factory=list)
    """Of all attempts: the status, or the error's name."""

    @property
    def sop_instance_uid(self) -> str:
        return uid("instance", self.run, self.number)

    @property
    def acknowledged(self) -> bool:
        return bool(self.answers) and self.answers[-1] == "0x0000"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a station sends. ``stays``: keeps its association open by echoes, else releases it after
    each exam. ``patience``: for so many seconds it sends again what was not acknowledged.
    ``breaks_off``: the chance that it breaks off in the middle."""

    stays: bool = False
    patience: float = 0.0
    breaks_off: float = 0.0


class Traffic:
    """Stations that send their shots, each station one after the other, all at the same time."""

    def __init__(
        self,
        port: int,
        stations: Iterable[tuple[str, Sequence[Shot]]],
        manner: Manner,
        *,
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        """``stations``: calling AE title and shots in the order of their times; a list that several
        share is shared work. ``turn`` waits until one more exam may begin."""
        self._port, self._manner, self._turn = port, manner, turn
        self._stations: list[tuple[str, queue.SimpleQueue[Shot]]] = []
        queues: dict[int, queue.SimpleQueue[Shot]] = {}
        named = list(stations)
        for title, shots in named:
            if id(shots) not in queues:
                waiting: queue.SimpleQueue[Shot] = queue.SimpleQueue()
                queues[id(shots)] = waiting
                for shot in shots:
                    waiting.put(shot)
            self._stations.append((title, queues[id(shots)]))
        self.begun = 0.0
        """Of the wall clock."""
        self.admitted = 0
        """Associations of those who stay, open now."""
        self.most_admitted = 0
        self.acknowledged = 0
        self._last_due = max(shot.due for _, shots in named for shot in shots)
        self._counting = threading.Lock()
        self._failed: list[BaseException] = []

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Send everything; ``watch`` is called a few times a second."""
        self.begun = time.time()
        threads = [
            threading.Thread(target=self._work, args=(n, *station), daemon=True)
            for n, station in enumerate(self._stations)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watch()
            time.sleep(0.2)
        if self._failed:
            raise self._failed[0]

    def _work(self, number: int, title: str, waiting: queue.SimpleQueue[Shot]) -> None:
        try:
            station = _Station(self, title, self._manner, random.Random(number))
            if self._manner.stays:
                with suppress(OSError):  # its first exam tries again
                    station.open()
            while True:
                try:
                    shot = waiting.get_nowait()
                except queue.Empty:
                    break
                station.wait(self.begun + shot.due)
                self._turn()
                station.send(shot)
            if self._manner.stays:
                station.wait(self.begun + self._last_due)
            station.leave()
        except BaseException as error:  # noqa: BLE001  told by run
            self._failed.append(error)

    def connect(self, title: str) -> Modality:
        """An association of a station."""
        return Modality(self._port, title)

    def count(self, *, admitted: int = 0, acknowledged: int = 0) -> None:
        """Note what a station has seen."""
        with self._counting:
            self.admitted += admitted
            self.most_admitted = max(self.most_admitted, self.admitted)
            self.acknowledged += acknowledged


class _Station:
    def __init__(self, traffic: Traffic, title: str, manner: Manner, chance: random.Random) -> None:
        self._traffic, self._title, self._manner = traffic, title, manner
        self._chance = chance
        self._modality: Modality | None = None

    def open(self) -> Modality:
        """The open association, or a new one."""
        if self._modality is None:
            self._modality = self._traffic.connect(self._title)
            self._traffic.count(admitted=1)
        return self._modality

    def wait(self, until: float) -> None:
        """Until a time of the wall clock; who stays says a word now and then."""
        while (left := until - time.time()) > 0:
            time.sleep(min(left, _ECHO_SECONDS))
            if self._manner.stays and self._modality and until - time.time() > 0:
                try:
                    self._modality.echo()
                except OSError:
                    self._gone()

    def send(self, shot: Shot) -> None:
        """Until it is acknowledged or the patience is over."""
        content = shot.film.exam(shot.run, shot.number, as_drawn=shot.as_drawn)
        shot.begun = time.time()
        while True:
            answer = self._attempt(shot, content)
            shot.answers.append(answer)
            if shot.acknowledged:
                self._traffic.count(acknowledged=1)
                break
            if time.time() - shot.begun > self._manner.patience:
                break
            time.sleep(_AGAIN_SECONDS)
        if not self._manner.stays:
            self.leave()

    def _attempt(self, shot: Shot, content: bytearray) -> str:
        begun = time.time()
        named = shot.film.sop_class_uid, shot.sop_instance_uid
        try:
            modality = self.open()
            if self._chance.random() < self._manner.breaks_off:
                modality.break_off(*named, content)
                self._gone()
                return "broken off"
            status = modality.store(*named, content)
        except OSError as error:
            self._gone()
            return type(error).__name__
        shot.seconds = time.time() - begun
        return f"0x{status:04X}"

    def leave(self) -> None:
        """Release the association, if there is one."""
        if self._modality is not None:
            try:
                self._modality.release()
            except OSError:
                self._modality.close()
            self._modality = None
            self._traffic.count(admitted=-1)

    def _gone(self) -> None:
        if self._modality is not None:
            self._modality.close()
            self._modality = None
            self._traffic.count(admitted=-1)
