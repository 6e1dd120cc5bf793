"""What several integration tests ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import OperatorLedger, SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.scp.archive_peer import ArchivePeer
from tests.fakes.clock import ManualClock


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
def ledger(tmp_path: Path, clock: ManualClock) -> Iterator[SqlLedger]:
    migrate(tmp_path / "ledger.sqlite")
    sql_ledger = SqlLedger(tmp_path / "ledger.sqlite", clock)
    yield sql_ledger
    sql_ledger.close()


@pytest.fixture
def operator(ledger: SqlLedger, tmp_path: Path, clock: ManualClock) -> Iterator[OperatorLedger]:
    operator_ledger = OperatorLedger(tmp_path / "ledger.sqlite", clock)
    yield operator_ledger
    operator_ledger.close()
