"""What the settings say about destinations reaches the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.job import Stage
from dicom_node.settings import DestinationSettings, NodeSettings, Settings
from dicom_node.wiring import Wiring
from tests.builders.exams import claim_one, exam_before, report_objects
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger
from tests.fakes.stage_ports import ScriptedSender

WANTED = {"a-pacs": tuple(ReportKind), "b-pacs": (ReportKind.NARRATIVE,)}


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    return Wiring(
        Settings(
            node=NodeSettings(data_dir=tmp_path),
            destinations=tuple(
                DestinationSettings(
                    name=name, ae_title="PACS", host="127.0.0.1", port=104, objects=objects
                )
                for name, objects in WANTED.items()
            ),
        )
    )


@pytest.mark.parametrize("destination", WANTED)
def test_each_destination_gets_the_kinds_of_objects_it_wants(
    wiring: Wiring, destination: str
) -> None:
    ledger, sender = InMemoryLedger(ManualClock()), ScriptedSender()
    vars(wiring).update(ledger=ledger, sender=sender)
    exam_id = exam_before(ledger, Stage.DELIVER, destinations=(destination,))
    wiring.lane("pacs")(claim_one(ledger, Stage.DELIVER))
    assert sender.sent == [
        (destination, report.sop_instance_uid)
        for report in report_objects(exam_id)
        if report.kind in WANTED[destination]
    ]
