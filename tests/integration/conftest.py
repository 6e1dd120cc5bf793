"""What several integration tests ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import metrics, waiting
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.ports import Clock
from dicom_node.scp import guard
from dicom_node.scp.archive_peer import ArchivePeer
from dicom_node.scp.guard import Cut
from dicom_node.settings import ReceiveSettings, Settings
from tests.fakes.clock import ManualClock
from tests.integration.peers import RunningReceiver, running_receiver, wait_until

MAX_PDU_KB = 16


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ArchivePeer]:
    peer = ArchivePeer(tmp_path / "archive")
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    """A ledger's database that is migrated and empty."""
    migrate(tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(ledger_path: Path, clock: Clock) -> Iterator[SqlLedger]:
    sql_ledger = SqlLedger(ledger_path, clock)
    yield sql_ledger
    sql_ledger.close()


@pytest.fixture
def operator(ledger: SqlLedger, ledger_path: Path, clock: ManualClock) -> Iterator[OperatorLedger]:
    operator_ledger = OperatorLedger(ledger_path, clock)
    yield operator_ledger
    operator_ledger.close()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[Cut]:
    """Why connections were cut."""
    reasons: list[Cut] = []
    monkeypatch.setattr(metrics, "connection_cut", reasons.append)
    monkeypatch.setattr(guard, "_told", {})
    return reasons


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    """`receive.fast_path`: what is promised holds with both."""
    return bool(request.param)


@pytest.fixture
def either_way(fast_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Associations that the node requests wait, or pynetdicom looks at them (`waiting.py`)."""
    monkeypatch.setattr(waiting, "is_usable", lambda: fast_path)


@pytest.fixture
def impatient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_path: bool
) -> Iterator[RunningReceiver]:
    """A receiver with small limits and little patience; nothing may be left in it."""
    monkeypatch.setattr("dicom_node.scp.server._ACSE_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr("dicom_node.scp.server._PDU_SECONDS", 2.0)
    monkeypatch.setattr(guard, "_LOOK_SECONDS", 0.5)
    receive = ReceiveSettings(max_pdu_kb=MAX_PDU_KB, max_object_mb=1, fast_path=fast_path)
    with running_receiver(tmp_path / "node", settings=Settings(receive=receive)) as running:
        yield running
        wait_until(lambda: running.receiver.open_associations == 0)
        wait_until(lambda: running.incoming == [])
