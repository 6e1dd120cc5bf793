"""The real ledger and the one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.ports import Ledger
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    if request.param == "memory":
        yield InMemoryLedger(clock)
        return
    migrate(tmp_path / "ledger.sqlite")
    sql_ledger = SqlLedger(tmp_path / "ledger.sqlite", clock)
    yield sql_ledger
    sql_ledger.close()
