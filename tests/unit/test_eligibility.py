"""Which instances are assessed: every reason that a header can give, words and dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.assessment import Note
from dicom_node.domain.eligibility import (
    CR_IMAGE_STORAGE,
    DX_FOR_PRESENTATION,
    DX_FOR_PROCESSING,
    PRODUCT_NAME,
    SECONDARY_CAPTURE,
    Disposition,
    Eligible,
    Ineligible,
    Reason,
    screen,
)
from dicom_node.domain.exam import Header, Laterality, Sex

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
HAND = Header(
    sop_class_uid=CR_IMAGE_STORAGE,
    sop_instance_uid="1.2.3.4",
    study_instance_uid="1.2.3",
    modality="CR",
    image_type=("ORIGINAL", "PRIMARY"),
    photometric_interpretation="MONOCHROME2",
    samples_per_pixel=1,
    rows=2000,
    columns=1500,
    body_part_examined="HAND",
    view_position="PA",
    laterality=Laterality.LEFT,
    sex="F",
    birth_date=date(2016, 3, 2),
    study_date=date(2026, 3, 2),
    patient_age_months=120.0,
)

IGNORED: dict[Reason, dict[str, Any]] = {
    Reason.OWN_RESULT: {"manufacturer_model_name": PRODUCT_NAME},
    Reason.OTHER_SOP_CLASS: {"sop_class_uid": CT_IMAGE_STORAGE},
    Reason.SECONDARY_CAPTURE: {"sop_class_uid": SECONDARY_CAPTURE},
    Reason.FOR_PROCESSING: {"sop_class_uid": DX_FOR_PROCESSING},
    Reason.OTHER_MODALITY: {"modality": "MG"},
    Reason.OTHER_BODY_PART: {"body_part_examined": "CHEST"},
}
REJECTED: dict[Reason, dict[str, Any]] = {
    Reason.DERIVED_SECONDARY: {"image_type": ("DERIVED", "SECONDARY", "")},
    Reason.BURNED_IN_ANNOTATION: {"burned_in_annotation": "YES"},
    Reason.COLOUR_IMAGE: {"photometric_interpretation": "RGB", "samples_per_pixel": 3},
    Reason.MULTI_FRAME: {"number_of_frames": 2},
    Reason.NO_PIXEL_DATA: {"rows": None},
    Reason.IMAGE_TOO_SMALL: {"rows": 255},
    Reason.IMAGE_TOO_LARGE: {"rows": 10_001, "columns": 10_000},
    Reason.VIEW_NOT_FRONTAL: {"view_position": "LL"},
    Reason.SEX_MISSING: {"sex": ""},
    Reason.SEX_NOT_SUPPORTED: {"sex": "O"},
    Reason.BIRTH_AFTER_STUDY: {"birth_date": date(2026, 3, 3)},
    Reason.AGE_OUT_OF_RANGE: {"birth_date": date(2007, 3, 1)},
    Reason.AGE_IMPLAUSIBLE: {"birth_date": date(1896, 3, 1)},
}
FOUND_IN_THE_PIXELS = {
    Reason.HAND_INCOMPLETE,
    Reason.IMAGE_BLANK,
    Reason.IMAGE_SATURATED,
    Reason.INDETERMINATE,
    Reason.NO_HAND_FOUND,
    Reason.PIXELS_UNREADABLE,
    Reason.SEVERAL_HANDS,
}


def changed(**values: Any) -> Eligible | Ineligible:
    return screen(replace(HAND, **values))


def test_a_plain_hand_radiograph_is_eligible_without_notes() -> None:
    assert screen(HAND) == Eligible(sex=Sex.FEMALE, chronological_age_months=120.0, notes=())


@pytest.mark.parametrize(("reason", "values"), IGNORED.items(), ids=str)
def test_what_is_not_ours_is_ignored(reason: Reason, values: dict[str, Any]) -> None:
    assert changed(**values) == Ineligible(reason=reason, disposition=Disposition.IGNORE)


@pytest.mark.parametrize(("reason", "values"), REJECTED.items(), ids=str)
def test_what_is_ours_but_not_assessable_is_rejected(
    reason: Reason, values: dict[str, Any]
) -> None:
    assert changed(**values) == Ineligible(reason=reason, disposition=Disposition.REJECT)


def test_every_reason_that_a_header_can_give_is_proven_here() -> None:
    proven = {*IGNORED, *REJECTED}
    assert proven == set(Reason) - FOUND_IN_THE_PIXELS


def test_a_result_of_ours_that_another_system_changed_is_ours() -> None:
    decision = changed(contributing_equipment=("Other", PRODUCT_NAME))
    assert isinstance(decision, Ineligible)
    assert decision.reason is Reason.OWN_RESULT


@pytest.mark.parametrize("modality", ["CR", "DX"])
@pytest.mark.parametrize("sop_class_uid", [CR_IMAGE_STORAGE, DX_FOR_PRESENTATION])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_both_image_classes_modalities_and_polarities_are_eligible(
    modality: str, sop_class_uid: str, photometric: str
) -> None:
    decision = changed(
        modality=modality, sop_class_uid=sop_class_uid, photometric_interpretation=photometric
    )
    assert isinstance(decision, Eligible)


@pytest.mark.parametrize(
    "part",
    [
        "HAND",
        "WRIST",
        "Hand L",
        "MAO",
        "MÃO",
        "Mãos",
        "PUNHO",
        "Punho e mão",
        "MÃO_ESQUERDA",
        "mão-punho",
        "IDADE ÓSSEA",
        "Idade Óssea",
        "MUÑECA",
        "CARPO",
        "BONE AGE",
        "BONEAGE",
    ],
)
def test_words_for_hand_and_wrist_are_understood(part: str) -> None:
    assert isinstance(changed(body_part_examined=part), Eligible)


@pytest.mark.parametrize("decomposed", ["MA\u0303O", "IDADE O\u0301SSEA"])
def test_decomposed_accents_are_understood(decomposed: str) -> None:
    assert isinstance(changed(body_part_examined=decomposed), Eligible)


@pytest.mark.parametrize(
    "part", ["CHEST", "TÓRAX", "PÉ", "JOELHO", "ANTEBRAÇO", "HANDLE", "COLUNA"]
)
def test_other_parts_are_ignored(part: str) -> None:
    decision = changed(body_part_examined=part, descriptions=("Mão e punho",))
    assert isinstance(decision, Ineligible)
    assert decision.reason is Reason.OTHER_BODY_PART


@pytest.mark.parametrize("text", ["RX MÃO E PUNHO PARA IDADE ÓSSEA", "Idade óssea", "BONE AGE"])
@pytest.mark.parametrize("part", ["", "EXTREMITY", "UP_EXM", "Membro superior"])
def test_a_description_decides_where_the_part_is_unspecific(part: str, text: str) -> None:
    decision = changed(body_part_examined=part, descriptions=("", text))
    assert isinstance(decision, Eligible)
    assert Note.BODY_PART_UNSTATED not in decision.notes


def test_a_coded_region_decides_without_words() -> None:
    hand = changed(body_part_examined="", anatomic_region_codes=("SCT:85562004",))
    assert isinstance(hand, Eligible)
    chest = changed(body_part_examined="", anatomic_region_codes=("SCT:51185008",))
    assert isinstance(chest, Ineligible)
    assert chest.reason is Reason.OTHER_BODY_PART


def test_an_image_without_any_word_is_left_to_the_model_and_says_so() -> None:
    decision = changed(body_part_examined="", descriptions=())
    assert isinstance(decision, Eligible)
    assert Note.BODY_PART_UNSTATED in decision.notes


@pytest.mark.parametrize("view", ["PA", "AP", "pa", "DP", ""])
def test_frontal_views_are_eligible(view: str) -> None:
    assert isinstance(changed(view_position=view), Eligible)


@pytest.mark.parametrize("code", ["SCT:399348003", "SCT:272479007", "SCT:399033003"])
def test_antero_posterior_postero_anterior_and_frontal_codes_are_eligible(code: str) -> None:
    assert isinstance(changed(view_position="", view_codes=(code,)), Eligible)


@pytest.mark.parametrize("code", ["SCT:399067008", "SCT:399173006", "SCT:399182000"])
def test_lateral_and_oblique_codes_are_rejected(code: str) -> None:
    decision = changed(view_position="", view_codes=("SCT:399348003", code))
    assert isinstance(decision, Ineligible)
    assert decision.reason is Reason.VIEW_NOT_FRONTAL


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"birth_date": None}, Note.BIRTH_DATE_MISSING),
        ({"study_date": None}, Note.STUDY_DATE_MISSING),
        ({"patient_age_months": 132.5}, Note.AGE_DISAGREES),
        ({"laterality": Laterality.RIGHT}, Note.RIGHT_HAND),
        ({"laterality": Laterality.UNSTATED}, Note.LATERALITY_UNSTATED),
        ({"laterality": Laterality.BOTH}, Note.LATERALITY_UNSTATED),
        ({"view_position": ""}, Note.VIEW_UNSTATED),
        ({"body_part_examined": ""}, Note.BODY_PART_UNSTATED),
    ],
    ids=str,
)
def test_what_the_reader_must_know_is_noted(values: dict[str, Any], note: Note) -> None:
    decision = changed(**values)
    assert isinstance(decision, Eligible)
    assert decision.notes == (note,)


@pytest.mark.parametrize("missing", ["birth_date", "study_date"])
def test_without_a_date_there_is_no_chronological_age(missing: str) -> None:
    decision = changed(**{missing: None})
    assert isinstance(decision, Eligible)
    assert decision.chronological_age_months is None


@pytest.mark.parametrize(
    ("birth_date", "eligible"), [(date(2026, 3, 2), True), (date(2007, 3, 2), True)]
)
def test_the_age_limits_are_eligible_themselves(birth_date: date, eligible: bool) -> None:
    assert isinstance(changed(birth_date=birth_date), Eligible) is eligible


texts = st.text(max_size=40)
numbers = st.none() | st.integers()
dates = st.none() | st.dates()
headers = st.builds(
    Header,
    sop_class_uid=st.sampled_from([CR_IMAGE_STORAGE, DX_FOR_PRESENTATION]) | texts,
    sop_instance_uid=texts,
    modality=st.sampled_from(["CR", "DX"]) | texts,
    manufacturer_model_name=texts,
    contributing_equipment=st.tuples(texts),
    image_type=st.lists(texts, max_size=3).map(tuple),
    conversion_type=st.just("") | texts,
    burned_in_annotation=texts,
    photometric_interpretation=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]) | texts,
    samples_per_pixel=st.just(1) | numbers,
    number_of_frames=st.just(1) | numbers,
    rows=st.just(2000) | numbers,
    columns=st.just(2000) | numbers,
    body_part_examined=st.sampled_from(["HAND", ""]) | texts,
    anatomic_region_codes=st.lists(texts, max_size=2).map(tuple),
    descriptions=st.lists(texts, max_size=2).map(tuple),
    view_position=st.sampled_from(["PA", ""]) | texts,
    view_codes=st.lists(texts, max_size=2).map(tuple),
    laterality=st.sampled_from(Laterality),
    sex=st.sampled_from(["F", "M"]) | texts,
    birth_date=dates,
    study_date=dates,
    patient_age_months=st.none() | st.floats(),
)


@given(headers)
def test_screening_answers_whatever_the_header_holds(header: Header) -> None:
    decision = screen(header)
    assert isinstance(decision, Eligible | Ineligible)
    if isinstance(decision, Eligible):
        age = decision.chronological_age_months
        assert age is None or 0 <= age <= 228
