"""Several threads and processes on one ledger, and processes that are killed in the middle."""

from __future__ import annotations

import fcntl
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger.database import Database
from dicom_node.domain.exam import Outcome, Receipt
from dicom_node.domain.job import JobState, Stage
from tests.builders.exams import WAY, complete, instance

ROOT = Path(__file__).parents[2]
THREADS = 8


@pytest.fixture
def clock() -> SystemClock:
    """Of the ledger: the processes have no other."""
    return SystemClock()


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def claim_all(ledger: SqlLedger, owner: str) -> list[int]:
    """Claim until nothing is due, in different portions."""
    claimed: list[int] = []
    while jobs := ledger.claim(
        list(Stage), owner=owner, lease_seconds=600, limit=1 + len(claimed) % 3
    ):
        claimed += [job.job_id for job in jobs]
    return claimed


CLAIMER = """
import sys
from pathlib import Path
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger
from tests.integration.test_ledger_concurrency import claim_all
print(*claim_all(SqlLedger(Path(sys.argv[1]), SystemClock()), sys.argv[2]))
"""


def test_no_job_is_claimed_twice_by_threads_and_processes(
    ledger_path: Path, ledger: SqlLedger
) -> None:
    for number in range(200):
        ledger.record_instance(instance(number))
    others = [start(CLAIMER, ledger_path, name) for name in ("other-1", "other-2")]
    with ThreadPoolExecutor(THREADS) as threads:
        names = [f"thread-{number}" for number in range(THREADS)]
        claimed = [
            job_id for mine in threads.map(lambda n: claim_all(ledger, n), names) for job_id in mine
        ]
    for other in others:
        claimed += map(int, other.communicate()[0].split())
        assert other.returncode == 0
    assert sorted(claimed) == list(range(1, 201))


def test_one_instance_received_eight_times_at_once_is_new_once(ledger: SqlLedger) -> None:
    barrier = Barrier(THREADS)

    def receive(number: int) -> tuple[int, Receipt]:
        barrier.wait()
        return ledger.record_instance(instance(number))

    with ThreadPoolExecutor(THREADS) as threads:
        for number in range(5):
            receipts = list(threads.map(receive, [number] * THREADS))
            assert Counter(receipt for _, receipt in receipts) == {
                Receipt.NEW: 1,
                Receipt.DUPLICATE: THREADS - 1,
            }
            assert len({exam_id for exam_id, _ in receipts}) == 1


def test_two_contents_of_one_uid_at_once_are_one_new_and_one_conflict(ledger: SqlLedger) -> None:
    barrier = Barrier(THREADS)

    def receive(number: int) -> Receipt:
        barrier.wait()
        return ledger.record_instance(instance(content=f"{number % 2}"))[1]

    with ThreadPoolExecutor(THREADS) as threads:
        receipts = Counter(threads.map(receive, range(THREADS)))
    assert receipts == {Receipt.NEW: 1, Receipt.CONFLICT: 1, Receipt.DUPLICATE: THREADS - 2}


def test_a_transaction_keeps_other_writers_out_from_its_begin(ledger_path: Path) -> None:
    opened = Database(ledger_path)
    with (
        opened.write(),
        closing(sqlite3.connect(ledger_path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
    opened.close()


def test_writers_queue_at_the_lock_file(ledger_path: Path, ledger: SqlLedger) -> None:
    """SQLite alone would let both in turn by polling; the file wakes the next one at once."""
    opened = Database(ledger_path)
    with ThreadPoolExecutor(1) as threads:
        with opened.write():
            waiting = threads.submit(ledger.record_instance, instance())
            lock_file = ledger_path.with_name(f"{ledger_path.name}.lock")
            with lock_file.open() as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert waiting.result()[1] is Receipt.NEW
    opened.close()


def test_a_reader_never_waits_for_a_writer(ledger_path: Path, ledger: SqlLedger) -> None:
    exam_id, _ = ledger.record_instance(instance())
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE exams SET outcome = 'assessed'")
        assert ledger.exam(exam_id).outcome is Outcome.PENDING
        writer.execute("COMMIT")
    assert ledger.exam(exam_id).outcome is Outcome.ASSESSED


NODE = """
import os, sys
from pathlib import Path
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.domain.job import Stage
from tests.builders.exams import WAY, complete, instance

ledger, first = SqlLedger(Path(sys.argv[1]), SystemClock()), int(sys.argv[2])
for number in range(first, first + 1000):
    ledger.record_instance(instance(number))
    os.write(1, f"received {number}\\n".encode())
    for _ in WAY:
        (job,) = ledger.claim(list(Stage), owner="victim", lease_seconds=600)
        complete(ledger, job)
        os.write(1, f"{job.stage} {job.exam_id}\\n".encode())
"""


@pytest.mark.parametrize("lines", [1, 2, 5, 11, 23, 38])
def test_what_was_acknowledged_survives_kill_9(ledger_path: Path, lines: int) -> None:
    """Two victims, one after the other; each dies somewhere after its ``lines``-th step."""
    acknowledged = [
        *kill_after(ledger_path, lines, first=0),
        *kill_after(ledger_path, lines, first=1000),
    ]
    assert len(acknowledged) >= 2 * lines
    with closing(sqlite3.connect(ledger_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ledger, operator = (
        SqlLedger(ledger_path, SystemClock()),
        OperatorLedger(ledger_path, SystemClock()),
    )
    for step, number in acknowledged:
        if step == "received":
            assert ledger.record_instance(instance(number))[1] is Receipt.DUPLICATE
            continue
        states = {job.stage: job.state for job in operator.exam_details(number).jobs}
        assert states[Stage(step)] is JobState.DONE
    finish_everything(ledger)
    for exam in operator.exams(limit=1000):
        done = [(job.stage, job.state) for job in operator.exam_details(exam.exam_id).jobs]
        assert done == [(stage, JobState.DONE) for stage in WAY]
        assert len(ledger.report_objects(exam.exam_id)) == 2
    ledger.close()
    operator.close()


def kill_after(path: Path, lines: int, *, first: int) -> list[tuple[str, int]]:
    """What the victim acknowledged: ("received", instance) or (stage, exam)."""
    victim = start(NODE, path, first)
    assert victim.stdout is not None
    seen = [victim.stdout.readline() for _ in range(lines)]
    victim.kill()
    seen += victim.stdout.readlines()
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    words = [line.split() for line in seen]
    return [(step, int(number)) for step, number in words]


def finish_everything(ledger: SqlLedger) -> None:
    """Another worker takes over."""
    ledger.expire_leases("victim")
    while jobs := ledger.claim(list(Stage), owner="heir", lease_seconds=600):
        complete(ledger, jobs[0])
