"""The region map's equalities: each finds the difference that it is for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.regions.sums import InstitutionBooks, RegionBooks, equalities

IMAGES = frozenset({"2.25.1", "2.25.2", "2.25.3"})
OUTCOMES = Counter(assessed=1, not_assessed=1, ignored=1)
CLINIC = InstitutionBooks(
    region="SP",
    institution_id="sp-clinic",
    sent=IMAGES,
    acknowledged=IMAGES,
    ledger=Counter(IMAGES),
    outcomes=OUTCOMES,
    centre=OUTCOMES,
    report=OUTCOMES,
)
OBJECTS = Counter({"2.25.11": 1, "2.25.12": 1, "2.25.13": 1})
SP = RegionBooks(
    region="SP",
    outcomes=OUTCOMES,
    delivered=OBJECTS,
    pacs=OBJECTS,
    strangers_sent=2,
    strangers_rejected=2,
    unknown_exams=0,
)


def broken(clinic: InstitutionBooks, sp: RegionBooks) -> dict[str, str]:
    """Each equality that does not hold, with its difference."""
    found = equalities([clinic], [sp])
    assert {item.where for item in found} == {"SP sp-clinic", "SP"}
    return {item.what: item.difference for item in found if not item.holds}


def test_equal_books_are_equal() -> None:
    assert broken(CLINIC, SP) == {}


@pytest.mark.parametrize(
    ("changed", "what", "difference"),
    [
        ({"sent": IMAGES | {"2.25.4"}}, "sent = acknowledged", "left only: 1 x 2.25.4"),
        (
            {"ledger": Counter(IMAGES) - Counter(["2.25.3"])},
            "acknowledged = ledger",
            "left only: 1 x 2.25.3",
        ),
        (
            {"ledger": Counter(IMAGES) + Counter(["2.25.3"])},
            "acknowledged = ledger",
            "right only: 1 x 2.25.3",
        ),
        (
            {"centre": Counter(assessed=2, ignored=1), "report": Counter(assessed=2, ignored=1)},
            "ledger = centre",
            "left only: 1 x not_assessed; right only: 1 x assessed",
        ),
        (
            {"report": Counter(assessed=1, not_assessed=1)},
            "centre = report of the replica",
            "left only: 1 x ignored",
        ),
    ],
)
def test_a_difference_of_an_institution_is_named(
    changed: dict[str, object], what: str, difference: str
) -> None:
    assert broken(replace(CLINIC, **changed), SP) == {what: difference}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "what", "difference"),
    [
        (
            {"pacs": OBJECTS - Counter(["2.25.11"])},
            "delivered = in the PACS",
            "left only: 1 x 2.25.11",
        ),
        (
            {"pacs": OBJECTS + Counter(["2.25.11"])},
            "delivered = in the PACS",
            "right only: 1 x 2.25.11",
        ),
        (
            {"outcomes": Counter(assessed=2, ignored=1)},
            "objects due = delivered",
            "left only: 1 x objects",
        ),
        ({"strangers_rejected": 1}, "strangers sent = rejected", "left only: 1 x images"),
        ({"unknown_exams": 1}, "strangers' exams = 0", "left only: 1 x exams"),
    ],
)
def test_a_difference_of_a_region_is_named(
    changed: dict[str, object], what: str, difference: str
) -> None:
    assert broken(CLINIC, replace(SP, **changed)) == {what: difference}  # type: ignore[arg-type]


def test_many_differences_are_counted() -> None:
    sent = IMAGES | {f"2.25.{number}" for number in range(4, 9)}
    [difference] = broken(replace(CLINIC, sent=sent), SP).values()
    assert difference == "left only: 1 x 2.25.4, 1 x 2.25.5, 1 x 2.25.6 and 2 others"
