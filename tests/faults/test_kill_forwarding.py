"""kill -9 while a node forwards, again and again: the centre's sums are exact.

``KILLS`` changes the number.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger, SqlOutbox
from dicom_node.adapters.ledger.migrate import migrate
from tests.builders.exams import instance
from tests.builders.forwarding import delivered_exam, forward_of
from tests.fakes.clock import ManualClock
from tests.integration.peers import wait_until
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres

KILLS = int(os.environ.get("KILLS", "25"))
EXAMS, BATCH = 120, 10
MOMENTS_SECONDS = 0.1
"""After a batch that the centre has, so long at most to the kill."""


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
        yield running


def forward(folder: Path, url: str) -> None:
    """What the delivery process does, without end."""
    _, step = forward_of(folder, SystemClock(), PostgresArchive(url))
    while True:
        step()


def test_forwarding_that_is_killed_loses_and_doubles_nothing(
    centre: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.stages.forward.BATCH", BATCH)
    migrate(tmp_path / "ledger.sqlite")
    ledger = SqlLedger(tmp_path / "ledger.sqlite", ManualClock())
    for number in range(1, EXAMS + 1):
        delivered_exam(ledger, number)
    ledger.close()
    mine = PostgresArchive(centre.url("node_sp"))
    outbox, last = forward_of(tmp_path, SystemClock(), mine)
    forked, chance = multiprocessing.get_context("fork"), random.Random(1)
    unfinished = unknown = 0
    for _ in range(KILLS):
        if outbox.backlog().waiting < 4 * BATCH:
            outbox.replay(instance().received_at)
        wanted = mine.last_batch() + chance.randint(0, 3)
        child = forked.Process(target=forward, args=(tmp_path, centre.url("node_sp")))
        child.start()
        wait_until(lambda: mine.last_batch() >= wanted, seconds=60, poll=0)  # noqa: B023
        time.sleep(chance.uniform(0, MOMENTS_SECONDS))
        child.kill()
        child.join()
        unfinished += outbox.backlog().waiting > 0
        unknown += mine.last_batch() > outbox.last_batch()
    Console().print(f"{KILLS} kills: {unfinished} before the last exam, {unknown} amid a batch")
    assert unfinished >= KILLS / 2
    outbox.replay(instance().received_at)
    while last():
        pass
    check(centre, outbox)
    outbox.close()


def check(centre: Postgres, outbox: SqlOutbox) -> None:
    """Every exam once, with its delivery; both sides know the same last batch."""
    exams = "SELECT count(*), count(DISTINCT exam_pseudonym), sum(bone_age_months) FROM exams"
    assert centre.sql(exams) == f"{EXAMS}|{EXAMS}|{126.5 * EXAMS:g}"
    ways = "SELECT count(*), count(DISTINCT exam_pseudonym) FROM deliveries"
    assert centre.sql(ways) == f"{EXAMS}|{EXAMS}"
    assert outbox.backlog().waiting == outbox.backlog().refused == 0
    theirs = centre.sql("SELECT last_batch FROM nodes WHERE node = 'sp-1'")
    assert theirs == str(outbox.last_batch())
