"""Decoders that hang or are killed under a running node: their exam is parked, others go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.ledger.queries import ExamDetails
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState, Stage
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import wait_until
from tests.peers.invariants import check_fates, check_rest
from tests.peers.node import Node, running_node, write_config


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with two workers."""
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node") as running:
        yield running


def exam(node: Node, exam_id: int) -> ExamDetails:
    ledger = node.ledger()
    details = ledger.exam_details(exam_id)
    ledger.close()
    return details


def send(node: Node, path: Path) -> int:
    """Send a radiograph; its exam."""
    [sent] = send_files([path], node.peer, calling_ae_title="MODALITY")
    assert sent.status == 0
    ledger = node.ledger()
    [newest] = ledger.exams(limit=1)
    ledger.close()
    return newest.exam_id


def parked(node: Node, exam_id: int) -> list[tuple[Stage, Fault | None]]:
    jobs = exam(node, exam_id).jobs
    return [(job.stage, job.fault) for job in jobs if job.state is JobState.PARKED]


def test_a_decoder_that_hangs_parks_its_exam_and_the_others_go_on(
    node: Node, tmp_path: Path
) -> None:
    first, *others = radiograph_files(tmp_path / "sent", 4)
    hung = node.decoders()
    assert len(hung) == 2
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    exam_id = send(node, first)
    wait_until(lambda: parked(node, exam_id) != [], seconds=30)
    assert time.monotonic() - begun < 25
    assert parked(node, exam_id) == [(Stage.INFER, Fault.DECODING_STOPPED)]
    [left] = set(hung) & set(node.decoders())
    os.kill(left, signal.SIGCONT)
    for path in others:
        good = send(node, path)
        wait_until(lambda good=good: not _moves(node, good), seconds=30)  # type: ignore[misc]
        assert exam(node, good).exam.outcome in {Outcome.ASSESSED, Outcome.NOT_ASSESSED}
    ledger = node.ledger()
    [job] = [job for job in exam(node, exam_id).jobs if job.state is JobState.PARKED]
    ledger.retry_job(job.job_id)
    ledger.close()
    wait_until(lambda: not _moves(node, exam_id), seconds=30)
    assert parked(node, exam_id) == []
    assert check_fates(node, [first, *others], Counter()).parked == 0
    check_rest(node, answered=4, restarts=0)


def test_decoders_that_are_killed_again_and_again_lose_no_exam(node: Node, tmp_path: Path) -> None:
    stop = threading.Event()
    killed: list[int] = []
    files: list[Path] = []
    exams: list[int] = []

    def kill() -> None:
        while not stop.wait(0.4):
            for pid in node.decoders():
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        while len(killed) <= 10:  # on a fast machine most exams are done between two kills
            assert len(files) < 300, f"only {len(killed)} decoders were met"
            more = radiograph_files(tmp_path / f"sent-{len(files)}", 12, first=len(files))
            files += more
            exams += [send(node, path) for path in more]
    finally:
        stop.set()
        thread.join()
    node.wait_until_idle(120)  # one that was killed before it had started is tried again later
    ended = [exam(node, exam_id) for exam_id in exams]
    for details in ended:
        faults = {job.fault for job in details.jobs if job.state is JobState.PARKED}
        assert faults <= {Fault.DECODING_STOPPED}
        assert faults or details.exam.outcome is not Outcome.PENDING
    check_fates(node, files, Counter())
    check_rest(node, answered=len(files), restarts=0)


def _moves(node: Node, exam_id: int) -> bool:
    return any(job.state in {JobState.QUEUED, JobState.LEASED} for job in exam(node, exam_id).jobs)
