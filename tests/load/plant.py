"""The node with its archive, what they hold while they work, and what is there at the end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.integration.peers import dcmtk_program, free_port, listens, wait_until
from tests.peers.held import processes
from tests.peers.node import Node, running_node, write_config

ARCHIVE = "ARCHIVE"
_ROOM = """\
[receive]
processes = 2
max_associations = 120
max_associations_per_peer = 120
"""


class Archive:
    """DCMTK's storescp as the PACS; it can go away and come back. The time at which a report was
    stored is that of its file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._process = subprocess.Popen(
            [
                *(dcmtk_program("storescp"), "--fork", "-aet", ARCHIVE, "-pdu", "131072"),
                *("-od", str(self.folder), str(self.port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        pid = self._process.pid
        wait_until(lambda: listens(pid, self.port))

    def stop(self) -> None:
        """Go away at once, with all associations."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def stored_at(self) -> dict[str, float]:
        """SOP Instance UID to the time of the wall clock at which it was stored."""
        with os.scandir(self.folder) as entries:
            return {e.name.partition(".")[2]: e.stat().st_mtime for e in entries if e.is_file()}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a node holds at a time of the wall clock."""

    at: float
    resident_mb: dict[str, float]
    """By process; decoders under the name of their worker."""
    exams: int
    open_exams: int
    """On their way: not yet reported, parked or ignored."""
    waiting: dict[str, int]
    """Queued jobs by stage."""

    @property
    def total_mb(self) -> float:
        return sum(self.resident_mb.values())


class Plant:
    """A node, its archive and a look at both."""

    def __init__(self, node: Node, archive: Archive) -> None:
        self.node, self.archive = node, archive
        self.samples: list[Sample] = []
        self._ledger = sqlite3.connect(
            f"file:{node.settings.node.data_dir / 'ledger.sqlite'}?mode=ro",
            uri=True,
            timeout=30,
            check_same_thread=False,
        )

    def sample(self) -> Sample:
        """Look now."""
        [[exams]] = self._ask("SELECT count(*) FROM exams")
        [[open_exams]] = self._ask(_OPEN_EXAMS)
        waiting = self._ask("SELECT stage, count(*) FROM jobs WHERE state = 'queued' GROUP BY 1")
        return Sample(
            at=time.time(),
            resident_mb=resident_mb(self.node),
            exams=int(str(exams)),
            open_exams=int(str(open_exams)),
            waiting={str(stage): int(str(count)) for stage, count in waiting},
        )

    def ended(self) -> int:
        """How many exams the node is done with; quick, however many there are."""
        [[exams, queued, leased]] = self._ask(_ENDED)
        return int(str(exams)) - int(str(queued)) - int(str(leased))

    @contextmanager
    def watched(self, seconds: float = 1.0) -> Iterator[None]:
        """Sample again and again for the time of the block."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                self.samples.append(self.sample())
                stop.wait(seconds)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def fates(self) -> dict[str, Fate]:
        """SOP Instance UID of each image to what became of it."""
        parked = {str(exam) for [exam] in self._ask(_PARKED)}
        stored = self.archive.stored_at()
        found: dict[str, Fate] = {}
        for exam_id, image, outcome, months, report, verdict in self._ask(_FATES):
            fate = found.setdefault(
                str(image),
                Fate(
                    outcome=str(outcome),
                    months=None if months is None else float(str(months)),
                    parked=str(exam_id) in parked,
                ),
            )
            if report is not None:
                there = stored.get(str(report)) if verdict == "stored" else None
                fate.stored_at.append(there)
        return found

    def close(self) -> None:
        """Stop looking."""
        self._ledger.close()

    def _ask(self, sql: str) -> Sequence[tuple[object, ...]]:
        return self._ledger.execute(sql).fetchall()


# Each side of both has its partial index: the look must not grow with the ledger
_OPEN_EXAMS = """
    SELECT count(*) FROM (
        SELECT exam_id FROM jobs WHERE state = 'queued'
        UNION SELECT exam_id FROM jobs WHERE state = 'leased'
    )
"""
_ENDED = """
    SELECT (SELECT coalesce(max(exam_id), 0) FROM exams),
        (SELECT count(*) FROM jobs WHERE state = 'queued'),
        (SELECT count(*) FROM jobs WHERE state = 'leased')
"""
_PARKED = "SELECT exam_id FROM jobs WHERE state = 'parked'"
_FATES = """
    SELECT exams.exam_id, instances.sop_instance_uid, outcome, bone_age_months,
        sent_sop_instance_uid, verdict
    FROM instances JOIN exams USING (instance_id)
    LEFT JOIN predictions USING (exam_id)
    LEFT JOIN reports USING (exam_id)
    LEFT JOIN deliveries ON deliveries.sop_instance_uid = reports.sop_instance_uid
"""


class Fate:
    """What the ledger and the archive know of one image."""

    def __init__(self, *, outcome: str, months: float | None, parked: bool) -> None:
        self.outcome, self.months, self.parked = outcome, months, parked
        self.stored_at: list[float | None] = []
        """When each report object was stored in the archive; None: it was not."""

    @property
    def reported_at(self) -> float | None:
        """When the last of its report objects was in the archive; None while one is missing."""
        times = [at for at in self.stored_at if at is not None]
        return max(times) if times and len(times) == len(self.stored_at) else None


def resident_mb(node: Node) -> dict[str, float]:
    """Resident memory of each process of a node, in megabytes."""
    names = {pid: name for name, pid in node.named().items()}
    workers = {pid: f"{name} decoder" for pid, name in names.items()}
    names[node.process.pid] = "supervisor"
    found: dict[str, float] = {}
    for pid in processes(node):
        with suppress(OSError, KeyError):
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            name = names.get(pid) or workers[int(status[1])]
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[name] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return found


@contextmanager
def running_plant(folder: Path, *, extra: str = "") -> Iterator[Plant]:
    """A node with room for 100 users, and its archive. ``extra``: more of its configuration."""
    archive = Archive(folder / "archive")
    archive.start()
    try:
        write_config(
            folder / "node", [("archive", ARCHIVE, archive.port)], extra=f"{_ROOM}\n{extra}"
        )
        with running_node(folder / "node") as node:
            plant = Plant(node, archive)
            try:
                yield plant
            finally:
                plant.close()
    finally:
        archive.stop()
