"""kill -9 in every stage, aimed: the process that holds a job of that stage, the receiver that
receives, the supervisor, everything at once; exams come in all the time, by DCMTK's storescu.

Within ten seconds of each kill the killed process is ready again and the exam it had in hand has
moved on, on a machine that does nothing else. `make kill` kills 200 times and writes
`build/kill.json`; KILLS changes the number.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

import inference
from dicom_node.domain.job import Stage
from dicom_node.supervisor import SILENT_SECONDS, ready_path
from dicom_node.worker import LEASE_SECONDS
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import dcmtk, wait_until
from tests.peers.invariants import Fates, check_fates, check_rest, check_stopped
from tests.peers.node import Node, start_node, write_config
from tests.peers.orthanc import Orthanc, needs_orthanc, running_orthanc
from tests.peers.postgres import Postgres, needs_postgres, running_centre

RECOVERY_SECONDS = 10.0
KILLS = int(os.environ.get("KILLS", "200"))
BUILD = Path(inference.__file__).parent.parent / "build"
OPEN_EXAMS = 2
"""So many are on their way at once: an exam that was interrupted goes behind those that wait."""
FILES = 30
"""So many radiographs are drawn at once, each an exam of its own."""
SENDERS = 2
TARGETS = ("receive", *Stage, "supervisor", "everything")
PACS = "pacs"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill: of what, whether it interrupted work, and how long until all was as before."""

    target: str
    hit: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A job that a process has in hand."""

    job_id: int
    attempt: int
    owner: str

    @property
    def process(self) -> str:
        """Name of the process; a lane's owner is ``delivery-0:DESTINATION``, or more."""
        return self.owner.partition(":")[0]


@dataclass
class Run:
    """A node under fire: it is replaced when the supervisor is killed."""

    folder: Path
    node: Node
    acknowledged: set[Path] = field(default_factory=set)
    sending: set[Path] = field(default_factory=set)
    restarts: int = 0
    """Of processes, since this supervisor started."""

    def query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Ask the ledger file without going through the node's code: it is quicker."""
        path = self.node.settings.node.data_dir / "ledger.sqlite"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as connection:
            return connection.execute(sql, values).fetchall()

    def leased(self, stage: Stage | None = None) -> list[Lease]:
        """Jobs in hand, those that no kill has hit before."""
        rows = self.query(
            "SELECT job_id, attempt, owner FROM jobs WHERE state = 'leased' AND crashes = 0"
            " AND stage = coalesce(?, stage)",
            stage,
        )
        return [Lease(job_id=int(str(a)), attempt=int(str(b)), owner=str(c)) for a, b, c in rows]

    def wait_for_lease(self, stage: Stage) -> Lease:
        """A job of that stage that a process has in hand now."""
        found: list[Lease] = []

        def is_found() -> bool:
            found[:] = self.leased(stage)
            return bool(found)

        wait_until(is_found, seconds=60, poll=0)
        return found[0]

    def has_moved_on(self, lease: Lease) -> bool:
        """Whether the job of a dead process is done, or parked."""
        [[state]] = self.query("SELECT state FROM jobs WHERE job_id = ?", lease.job_id)
        return state not in {"queued", "leased"}

    def is_held(self, lease: Lease) -> bool:
        """Whether the job is still in the state in which it was left."""
        sql = "SELECT 1 FROM jobs WHERE job_id = ? AND attempt = ? AND state = 'leased'"
        return bool(self.query(sql, lease.job_id, lease.attempt))

    def open_exams(self) -> int:
        """How many are on their way."""
        sql = "SELECT count(DISTINCT exam_id) FROM jobs WHERE state IN ('queued', 'leased')"
        [[count]] = self.query(sql)
        return int(str(count))

    def is_ready(self, name: str, killed: int) -> bool:
        """Whether a process of that name is ready that is not the killed one."""
        pid = self.node.named().get(name)
        note = ready_path(self.node.settings.node.data_dir / "run", name)
        with suppress(OSError, ValueError):
            return pid not in {None, killed} and int(note.read_text()) == pid
        return False


def radiographs(folder: Path) -> Iterator[Path]:
    """No end of radiographs that nobody has sent before."""
    made = 0
    while True:
        yield from radiograph_files(folder / f"{made:04d}", FILES, first=made)
        made += FILES


@contextmanager
def senders(run: Run) -> Iterator[None]:
    """Exams come in for the time of the block; each is sent again until it is acknowledged."""
    stop, taking = threading.Event(), threading.Lock()
    source = radiographs(run.folder / "sent")

    def send() -> None:
        while not stop.is_set():
            if run.open_exams() + len(run.sending) > OPEN_EXAMS:
                stop.wait(0.02)
                continue
            with taking:
                path = next(source)
            run.sending.add(path)
            while not acknowledged(run.node, path):
                time.sleep(0.05)
            run.acknowledged.add(path)
            run.sending.discard(path)

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def acknowledged(node: Node, path: Path) -> bool:
    """Send by storescu; whether the node answered 0x0000."""
    try:
        port = node.note["port"]
    except OSError:
        return False
    options = ("-v", "-to", 5, "-ta", 5, "-td", 20, "-aet", "MODALITY", "-aec", "BONEAGE")
    said = dcmtk("storescu", *options, "127.0.0.1", port, path)
    return "Received Store Response (Success)" in said


def kill_stage(run: Run, stage: Stage) -> Kill:
    """kill -9 for the process that has a job of this stage in hand."""
    lease = run.wait_for_lease(stage)
    pid = run.node.named()[lease.process]
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    run.restarts += 1
    hit = run.is_held(lease)
    wait_until(lambda: run.is_ready(lease.process, pid) and run.has_moved_on(lease), seconds=120)
    return Kill(target=stage, hit=hit, seconds=time.monotonic() - begun)


def kill_receiver(run: Run) -> Kill:
    """kill -9 for the receiver while a data set arrives."""
    incoming = run.node.settings.node.data_dir / "spool" / "incoming" / "receiver-0"
    wait_until(lambda: bool(list_names(incoming)), seconds=60, poll=0)
    pid = run.node.named()["receiver-0"]
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    run.restarts += 1
    hit, interrupted = bool(list_names(incoming)), set(run.sending)
    wait_until(
        lambda: run.is_ready("receiver-0", pid) and interrupted <= run.acknowledged, seconds=120
    )
    return Kill(target="receive", hit=hit, seconds=time.monotonic() - begun)


def list_names(folder: Path) -> list[str]:
    """What a folder holds; nothing when there is none."""
    with suppress(OSError):
        return [path.name for path in folder.iterdir()]
    return []


def kill_node(run: Run, kill: Callable[[Node], None], target: str) -> Kill:
    """kill -9 for the supervisor, and perhaps for everything else; then it is started again."""
    wait_until(lambda: bool(run.leased()), seconds=60, poll=0)
    leases = run.leased()
    kill(run.node)
    begun = time.monotonic()
    hit = any(run.is_held(lease) for lease in leases)
    run.node = start_node(run.folder / "node")
    run.restarts = 0
    wait_until(lambda: all(run.has_moved_on(lease) for lease in leases), seconds=120)
    return Kill(target=target, hit=hit, seconds=time.monotonic() - begun)


def kill_supervisor(node: Node) -> None:
    """Only the supervisor: its processes notice, and end."""
    node.process.kill()
    node.process.wait(30)


def fire(run: Run, target: str) -> Kill:
    """One kill; the node is whole again when this returns."""
    if target == "receive":
        return kill_receiver(run)
    if target == "supervisor":
        return kill_node(run, kill_supervisor, target)
    if target == "everything":
        return kill_node(run, Node.kill, target)
    return kill_stage(run, Stage(target))


def under_fire(folder: Path, targets: Sequence[str]) -> list[Kill]:
    """Kill by that list, then check the promise; what the node holds must be what it should, and
    the centre knows every exam once."""
    with running_orthanc(folder / "pacs") as pacs, running_centre(folder / "centre") as centre:
        url = centre.url("node_sp").replace("+psycopg2", "")
        config = write_config(
            folder / "node",
            [(PACS, Orthanc.ae_title, pacs.dicom_port)],
            node='name = "sp-1"\nregion = "SP"',
            extra=f'[central]\nurl = "{url}"\n',
        )
        with config.open("a") as opened:
            opened.write("\nverify_by_query = true\n")  # of the destination: there is a CONFIRM
        run = Run(folder=folder, node=start_node(folder / "node"))
        try:
            with senders(run):
                kills = [fire(run, target) for target in targets]
            run.node.wait_until_idle(120)
            fates = check_fates(run.node, run.acknowledged, received(pacs))
            check_centre(run, centre)
            check_rest(run.node, restarts=run.restarts)
            assert run.node.stop() == 0
        finally:
            if run.node.process.poll() is None:
                run.node.kill()
    check_stopped(run.node)
    tell(kills, len(run.acknowledged), fates)
    return kills


def check_centre(run: Run, centre: Postgres) -> None:
    """Every exam once, with its delivery."""
    wait_until(lambda: "dicom_node_outbox_exams 0.0" in run.node.get("/metrics"), seconds=60)
    [[exams]] = run.query("SELECT count(*) FROM exams")
    for table in ("exams", "deliveries"):
        count = f"SELECT count(*), count(DISTINCT exam_pseudonym) FROM {table}"
        assert centre.sql(count) == f"{exams}|{exams}"


def received(pacs: Orthanc) -> Counter[str]:
    """SOP Instance UIDs of the reports in the PACS."""
    return Counter(str(report["SOPInstanceUID"]) for report in pacs.reports())


def tell(kills: list[Kill], acknowledged: int, fates: Fates) -> None:
    """Print the recovery times and keep them."""
    by_target = {target: [k for k in kills if k.target == target] for target in TARGETS}
    found = {
        "kills": len(kills),
        "acknowledged": acknowledged,
        "reported": fates.reported,
        "parked": fates.parked,
        "recovery seconds": {
            target: {
                "kills": len(some),
                "work interrupted": sum(kill.hit for kill in some),
                "median": round(statistics.median(kill.seconds for kill in some), 2),
                "max": round(max(kill.seconds for kill in some), 2),
            }
            for target, some in by_target.items()
            if some
        },
    }
    BUILD.mkdir(exist_ok=True)
    (BUILD / "kill.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console().print_json(data=found)


def check(kills: list[Kill]) -> None:
    """Every kill was recovered from in time, and every kind interrupted work; but for the
    supervisor's, whose processes finish what they have in hand."""
    assert [kill for kill in kills if kill.seconds >= RECOVERY_SECONDS] == []
    assert {kill.target for kill in kills if kill.hit} >= {*TARGETS} - {"supervisor"}


@needs_orthanc
@needs_postgres
def test_a_kill_in_every_stage_is_recovered_from_at_once(tmp_path: Path) -> None:
    """The exact limit is for `make kill`: a start is work for the CPU, which others may have."""
    kills = under_fire(tmp_path, TARGETS)
    assert [kill for kill in kills if kill.seconds >= 3 * RECOVERY_SECONDS] == []


@pytest.mark.kill
@pytest.mark.timeout(600)
def test_processes_that_are_stopped_are_killed_and_their_exams_move_on(tmp_path: Path) -> None:
    write_config(tmp_path / "node", [])
    run = Run(folder=tmp_path, node=start_node(tmp_path / "node"))
    try:
        with senders(run):
            lease = run.wait_for_lease(Stage.INFER)
            named = run.node.named()
            stopped = {name: named[name] for name in (lease.process, "receiver-0", "delivery-0")}
            for pid in stopped.values():
                os.kill(pid, signal.SIGSTOP)
            begun = time.monotonic()
            wait_until(
                lambda: all(run.is_ready(*each) for each in stopped.items()),
                seconds=SILENT_SECONDS + 60,
            )
            wait_until(lambda: run.has_moved_on(lease))
            assert time.monotonic() - begun < LEASE_SECONDS
        run.node.wait_until_idle(120)
        check_fates(run.node, run.acknowledged, Counter())
        check_rest(run.node, restarts=3)
        assert run.node.stop() == 0
    finally:
        if run.node.process.poll() is None:
            run.node.kill()
    check_stopped(run.node)


@needs_orthanc
@needs_postgres
@pytest.mark.kill
@pytest.mark.timeout(7200)
def test_two_hundred_kills_lose_nothing_and_are_recovered_from(tmp_path: Path) -> None:
    rounds = -(-KILLS // len(TARGETS))
    check(under_fire(tmp_path, TARGETS * rounds))
