"""What the settings say about institutions and destinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.domain.commitment import Proof
from dicom_node.domain.delivery import ReportKind
from dicom_node.routing import Routing
from dicom_node.scp.policy import LOCAL_INSTITUTION
from dicom_node.settings import (
    DestinationSettings,
    InstitutionSettings,
    NodeSettings,
    Settings,
)
from dicom_node.stages.report import Route

WANTED = {"a-pacs": tuple(ReportKind), "b-pacs": (ReportKind.NARRATIVE,)}


@pytest.fixture
def routing(tmp_path: Path) -> Routing:
    return Routing(
        Settings(
            node=NodeSettings(data_dir=tmp_path, language="pt-BR"),
            institutions=(
                institution("a", destinations=("a-pacs",), report_not_assessed=False),
                institution("b", destinations=("b-pacs",), language="en"),
                institution("c"),
            ),
            destinations=tuple(
                DestinationSettings(
                    name=name,
                    ae_title="PACS",
                    host="127.0.0.1",
                    port=104,
                    objects=objects,
                    verify_by_query=name == "b-pacs",
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


def test_each_institution_has_its_own_route(routing: Routing) -> None:
    assert routing.route("a") == route(destinations=("a-pacs",), report_not_assessed=False)
    assert routing.route("b") == route(language="en", destinations=("b-pacs",))


@pytest.mark.parametrize("institution_id", ["c", LOCAL_INSTITUTION])
def test_who_names_no_destination_reports_to_all(routing: Routing, institution_id: str) -> None:
    assert routing.route(institution_id) == route()


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
    assert Routing(settings).route("e") == route(destinations=(), **expected)


def test_what_somebody_wants_is_what_a_worker_warms_up() -> None:
    assert Routing(Settings()).report_kinds == BOTH
    pages = Settings(institutions=(institution("e", objects=["pdf"]),))
    assert Routing(pages).report_kinds == BOTH | {ReportKind.PDF}


def test_an_unknown_institution_has_no_route(routing: Routing) -> None:
    assert routing.route("d") is None


def test_a_destination_says_what_it_takes_and_what_closes_a_delivery(routing: Routing) -> None:
    assert {name: routing.kinds(name) for name in WANTED} == WANTED
    assert routing.proof("a-pacs") is Proof.STATUS
    assert routing.proof("b-pacs") is Proof.QUERY


@pytest.mark.parametrize(("institution_id", "wants"), [("a", False), ("b", True), ("d", True)])
def test_who_wants_reports_on_what_was_not_assessed(
    routing: Routing, institution_id: str, wants: bool
) -> None:
    assert routing.reports_not_assessed(institution_id) is wants
