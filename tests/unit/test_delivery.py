"""What a destination's answer means (PS3.4 B.2.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.delivery import (
    SOP_CLASS_NOT_SUPPORTED,
    SOP_CLASSES,
    ReportKind,
    Verdict,
    verdict_for_status,
)


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007, 0xBFFF])
def test_success_warnings_and_duplicates_are_stored(status: int) -> None:
    assert verdict_for_status(status) is Verdict.STORED


@pytest.mark.parametrize("status", [0xA700, 0xA702, 0xA7FF, 0x0110, 0x0213])
def test_lack_of_resources_is_tried_again(status: int) -> None:
    assert verdict_for_status(status) is Verdict.TRY_AGAIN


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0124, 0x0112])
def test_mismatch_misunderstanding_and_lack_of_rights_are_refusals(status: int) -> None:
    assert verdict_for_status(status) is Verdict.REFUSED


@given(st.integers(min_value=0, max_value=0xFFFF))
def test_only_0000_0111_and_bxxx_end_a_delivery_well(status: int) -> None:
    stored = verdict_for_status(status) is Verdict.STORED
    assert stored == (status in (0x0000, 0x0111) or 0xB000 <= status <= 0xBFFF)


def test_an_object_whose_sop_class_is_not_supported_is_not_taken() -> None:
    assert verdict_for_status(SOP_CLASS_NOT_SUPPORTED) is Verdict.NOT_TAKEN


def test_every_object_has_a_sop_class() -> None:
    assert set(SOP_CLASSES) == set(ReportKind)
    assert all(SOP_CLASSES.values())
