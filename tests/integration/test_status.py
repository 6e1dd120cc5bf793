"""`dicom-node status` on a ledger whose node does not run."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.cli import main
from dicom_node.domain.errors import Fault
from dicom_node.domain.job import Stage
from dicom_node.domain.retry import Park
from tests.builders.exams import claim_one, instance


def test_only_jobs_that_wait_for_the_node_have_an_age(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.sqlite")
    ledger = SqlLedger(tmp_path / "ledger.sqlite", SystemClock())
    ledger.record_instance(instance(1))
    ledger.fail(claim_one(ledger, Stage.SCREEN), Park(fault=Fault.CORRUPT_SPOOL, detail="missing"))
    ledger.record_instance(instance(2))
    ledger.close()
    environment = {"DICOM_NODE_NODE__DATA_DIR": str(tmp_path)}
    done = CliRunner().invoke(main, ["status", "--json"], env=environment)
    queues = {row["state"]: row["oldest_seconds"] for row in json.loads(done.stdout)["queues"]}
    assert queues.keys() == {"parked", "queued"}
    assert queues["parked"] is None
    assert queues["queued"] >= 0
