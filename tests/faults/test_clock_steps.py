"""The clock of a whole node jumps while it works: nothing is lost, given up or held up, and reports
stay the same objects."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from dicom_node.adapters.ledger.queries import ExamDetails, OperatorLedger
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.job import Job, JobState, Stage
from dicom_node.domain.retry import MAX_AGE
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import free_port, running_storescp, wait_until
from tests.peers.clock import FakeClock, needs_faketime
from tests.peers.invariants import check_fates, check_rest, stored_in
from tests.peers.node import Node, running_node, write_config

pytestmark = needs_faketime
DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
YEAR_2038 = datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)
"""Seconds since 1970 pass 31 bits."""
SUMMER_TIME_ENDS = datetime(2026, 10, 25, 1, 0, 0, tzinfo=UTC)
"""In Berlin it is three o'clock, and two o'clock again."""


def send(node: Node, path: Path) -> None:
    [sent] = send_files([path], node.peer, calling_ae_title="MODALITY")
    assert sent.status == 0x0000


def deliveries(node: Node) -> list[Job]:
    ledger = node.ledger()
    found = [job for job in ledger.jobs(limit=100) if job.stage is Stage.DELIVER]
    ledger.close()
    return found


def has_failed_again(delivery: Job) -> bool:
    """Whether a second attempt has ended; a job that is given up fails the test."""
    assert delivery.state is not JobState.PARKED
    return delivery.attempt >= 2 and delivery.state is JobState.QUEUED


def exams(node: Node) -> list[ExamDetails]:
    ledger = node.ledger()
    found = [ledger.exam_details(exam.exam_id) for exam in ledger.exams(limit=100)]
    ledger.close()
    return found


@contextmanager
def worker_that_sleeps(node: Node, path: Path) -> Iterator[None]:
    """An exam whose worker is stopped in the middle of it, and goes on at the end of the block."""
    decoders = node.decoders()
    for pid in decoders:
        os.kill(pid, signal.SIGSTOP)  # who claims the exam waits for its decoder
    send(node, path)
    wait_until(lambda: owners(node) != [])
    [owner] = owners(node)
    asleep = node.named()[owner]
    os.kill(asleep, signal.SIGSTOP)
    for pid in decoders:
        os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(asleep, signal.SIGCONT)


def owners(node: Node) -> list[str]:
    """Who has a job(INFER) in hand."""
    path = node.settings.node.data_dir / "ledger.sqlite"
    sql = "SELECT owner FROM jobs WHERE state = 'leased' AND stage = 'infer'"
    with sqlite3.connect(path) as connection:
        return [owner for (owner,) in connection.execute(sql)]


@pytest.mark.parametrize("days", [3, MAX_AGE.days + 3])
def test_a_jump_ahead_gives_nothing_up(tmp_path: Path, days: int) -> None:
    """A lease that seems to run out costs an attempt, and the late result is dropped; a delivery
    that seems to be a week old goes on; an association that seems to be silent stays."""
    first, second, third = radiograph_files(tmp_path / "sent", 3)
    port, clock = free_port(), FakeClock(tmp_path / "clock")
    write_config(tmp_path / "node", [("pacs", "PACS", port)])
    with running_node(tmp_path / "node", **clock.environment) as node:
        ae = AE("MODALITY")
        ae.add_requested_context(DX_IMAGE, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", node.note["port"], ae_title="BONEAGE")
        send(node, first)
        wait_until(lambda: [job.attempt for job in deliveries(node)] == [1])
        with worker_that_sleeps(node, second):
            clock.set(timedelta(days=days))
            assert association.send_c_store(third).Status == 0x0000
            association.release()
            wait_until(lambda: has_failed_again(deliveries(node)[-1]), seconds=30)
        wait_until(lambda: len(deliveries(node)) == 3, seconds=60)
        with running_storescp(tmp_path / "pacs", port=port):
            node.wait_until_idle(120)
        fates = check_fates(node, [first, second, third], stored_in(tmp_path / "pacs"))
        assert (fates.reported, fates.parked) == (3, 0)
        assert sum(job.crashes for exam in exams(node) for job in exam.jobs) == 1
        check_rest(node, answered=3, restarts=0)


def test_a_step_back_holds_nothing_up(tmp_path: Path) -> None:
    """What waits for a time an hour away is due within seconds, not in an hour."""
    first, second = radiograph_files(tmp_path / "sent", 2)
    port, clock = free_port(), FakeClock(tmp_path / "clock")
    write_config(tmp_path / "node", [("pacs", "PACS", port)])
    with running_node(tmp_path / "node", **clock.environment) as node:
        send(node, first)
        wait_until(lambda: [job.attempt for job in deliveries(node)] == [1])
        with running_storescp(tmp_path / "pacs", port=port):
            clock.set(timedelta(hours=-1))
            send(node, second)
            node.wait_until_idle(60)
        assert check_fates(node, [first, second], stored_in(tmp_path / "pacs")).reported == 2
        check_rest(node, answered=2, restarts=0)


@pytest.mark.parametrize(
    ("moment", "zone"),
    [(SUMMER_TIME_ENDS, "Europe/Berlin"), (YEAR_2038, "UTC")],
    ids=["summer time ends", "2038"],
)
def test_a_moment_of_the_calendar_changes_nothing(
    tmp_path: Path, moment: datetime, zone: str
) -> None:
    before, after = radiograph_files(tmp_path / "sent", 2)
    clock = FakeClock(tmp_path / "clock", zone=zone)
    with running_storescp(tmp_path / "pacs") as port:
        write_config(tmp_path / "node", [("pacs", "PACS", port)])
        clock.set(moment - timedelta(minutes=10) - datetime.now(UTC))
        with running_node(tmp_path / "node", **clock.environment) as node:
            clock.set(moment - timedelta(seconds=4) - datetime.now(UTC))
            send(node, before)
            wait_until(lambda: clock.now() > moment)
            send(node, after)
            node.wait_until_idle(60)
            [late, early] = exams(node)
            assert early.exam.instance.received_at < moment < late.exam.instance.received_at
            assert [line.at for line in early.journal] == sorted(line.at for line in early.journal)
            ledger = OperatorLedger(node.settings.node.data_dir / "ledger.sqlite", clock)
            ledger.reassess(early.exam.exam_id)
            ledger.close()
            node.wait_until_idle(60)
            assert exams(node)[1].reports == early.reports, "the same objects, years later too"
            check_fates(node, [before, after], stored_in(tmp_path / "pacs"))
            check_rest(node, answered=2, restarts=0)


def test_the_clock_of_the_processes_is_another(tmp_path: Path) -> None:
    """Otherwise these tests would prove nothing."""
    [path] = radiograph_files(tmp_path / "sent", 1)
    clock = FakeClock(tmp_path / "clock")
    clock.set(timedelta(days=3))
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node", **clock.environment) as node:
        send(node, path)
        node.wait_until_idle(60)
        received = exams(node)[0].exam.instance.received_at
        assert abs(received - clock.now()) < timedelta(minutes=2)
        check_fates(node, [path], Counter())
