"""What the settings say about institutions and destinations reaches the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.job import Stage
from dicom_node.scp.policy import LOCAL_INSTITUTION
from dicom_node.settings import (
    DestinationSettings,
    InstitutionSettings,
    NodeSettings,
    Settings,
)
from dicom_node.stages.report import Route
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
            node=NodeSettings(data_dir=tmp_path, language="pt-BR"),
            institutions=(
                institution("a", destinations=("a-pacs",), report_not_assessed=False),
                institution("b", destinations=("b-pacs",), language="en"),
                institution("c"),
            ),
            destinations=tuple(
                DestinationSettings(
                    name=name, ae_title="PACS", host="127.0.0.1", port=104, objects=objects
                )
                for name, objects in WANTED.items()
            ),
        )
    )


def institution(name: str, **values: object) -> InstitutionSettings:
    return InstitutionSettings.model_validate(
        {"id": name, "name": name, "calling_ae_titles": (name.upper(),)} | values
    )


BOTH = frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE})


def route(**values: Any) -> Route:
    """The route of an institution that wishes nothing, but for ``values``."""
    defaults: dict[str, Any] = {
        "language": "pt-BR",
        "destinations": ("a-pacs", "b-pacs"),
        "report_not_assessed": True,
        "kinds": BOTH,
        "keep_character_set": False,
    }
    return Route(**(defaults | values))


def test_each_institution_has_its_own_route(wiring: Wiring) -> None:
    assert wiring.route("a") == route(destinations=("a-pacs",), report_not_assessed=False)
    assert wiring.route("b") == route(language="en", destinations=("b-pacs",))


@pytest.mark.parametrize("institution_id", ["c", LOCAL_INSTITUTION])
def test_who_names_no_destination_reports_to_all(wiring: Wiring, institution_id: str) -> None:
    assert wiring.route(institution_id) == route()


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"viewer_shows_sr": False}, {"kinds": BOTH | {ReportKind.CAPTURE}}),
        ({"objects": ["pdf"]}, {"kinds": frozenset({ReportKind.PDF})}),
        (
            {"objects": ["narrative"], "viewer_shows_sr": False},
            {"kinds": frozenset({ReportKind.NARRATIVE})},
        ),
        ({"character_set": "source"}, {"keep_character_set": True}),
    ],
)
def test_an_institution_chooses_its_objects_and_its_character_set(
    wishes: dict[str, object], expected: dict[str, object]
) -> None:
    settings = Settings(institutions=(institution("e", **wishes),))
    assert Wiring(settings).route("e") == route(destinations=(), **expected)


def test_what_somebody_wants_is_what_a_worker_warms_up() -> None:
    assert Wiring(Settings()).report_kinds == BOTH
    pages = Settings(institutions=(institution("e", objects=["pdf"]),))
    assert Wiring(pages).report_kinds == BOTH | {ReportKind.PDF}


def test_an_unknown_institution_has_no_route(wiring: Wiring) -> None:
    assert wiring.route("d") is None


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
