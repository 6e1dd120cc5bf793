"""Whose side and which notes an assessment states: the header's, corrected by the pixels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.assessment import Assessment, Note, assess
from dicom_node.domain.eligibility import Eligible, screen
from dicom_node.domain.exam import Laterality, Sex
from tests.fakes.stage_ports import PREDICTION
from tests.unit.test_eligibility import HAND


def assessed(stated: Laterality, *findings: Note) -> Assessment:
    decision = screen(replace(HAND, laterality=stated))
    assert isinstance(decision, Eligible)
    return assess(
        replace(PREDICTION, findings=findings),
        sex=Sex.FEMALE,
        laterality=stated,
        view_position="PA",
        chronological_age_months=120.0,
        reference=load_reference_table("greulich-pyle-v-vi"),
        notes=decision.notes,
    )


@pytest.mark.parametrize(
    ("stated", "side", "notes"),
    [
        (Laterality.LEFT, Laterality.LEFT, ()),
        (Laterality.RIGHT, Laterality.RIGHT, (Note.RIGHT_HAND,)),
        (Laterality.UNSTATED, Laterality.UNSTATED, (Note.LATERALITY_UNSTATED,)),
        (Laterality.BOTH, Laterality.UNSTATED, (Note.LATERALITY_UNSTATED,)),
    ],
)
def test_of_one_hand_the_side_is_what_the_header_says(
    stated: Laterality, side: Laterality, notes: tuple[Note, ...]
) -> None:
    found = assessed(stated)
    assert (found.laterality, found.notes) == (side, notes)


@pytest.mark.parametrize("stated", Laterality)
def test_of_two_hands_the_left_one_is_stated_whatever_the_header_says(stated: Laterality) -> None:
    found = assessed(stated, Note.TWO_HANDS_LEFT_ASSESSED)
    assert found.laterality is Laterality.LEFT
    assert found.notes == (Note.TWO_HANDS_LEFT_ASSESSED,)


def test_what_the_pixels_showed_follows_what_the_header_lacks() -> None:
    found = assessed(Laterality.RIGHT, Note.IMAGE_TURNED, Note.GREY_SCALE_INVERTED)
    assert found.notes == (Note.RIGHT_HAND, Note.IMAGE_TURNED, Note.GREY_SCALE_INVERTED)
