"""Revised reports, earlier exams in words, and character sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
from pydicom import Dataset

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import Assessment, ModelIdentity, Note
from dicom_node.domain.delivery import ReportKind, ReportObject
from dicom_node.domain.eligibility import Reason
from tests.builders.reports import (
    Sent,
    assessment,
    built,
    hand,
    numbers,
    previous,
    prior,
    radiograph,
    read,
    texts,
)

ALL = frozenset(ReportKind)


# --- earlier exams


def test_the_last_earlier_exam_is_compared_in_words(sent: Sent) -> None:
    finding = assessment(priors=(prior(90.0, study_date=date(2020, 1, 1)), prior(113.0)))
    said = texts(read(built(sent(radiograph(), finding))[ReportKind.NARRATIVE]))
    assert "Exame anterior de 01/07/2021: idade óssea de 9 anos e 5 meses (113,0 meses)." in said
    assert "Variação desde então: +13,3 meses em 12,0 meses." in said
    assert "outra versão do modelo" not in said
    english = built(sent(radiograph(), finding, language="en"))[ReportKind.NARRATIVE]
    assert "Earlier exam of 2021-07-01: bone age 9 years and 5 months" in texts(read(english))


def test_an_earlier_result_of_another_model_is_said_to_be_one(sent: Sent) -> None:
    other = ModelIdentity(name="boneage-test", version="1.0.0", sha256="ee" * 32)
    finding = assessment(priors=(prior(113.0, model=other),))
    assert "outra versão do modelo" in texts(
        read(built(sent(radiograph(), finding))[ReportKind.NARRATIVE])
    )


def test_the_last_earlier_exam_is_compared_in_coded_numbers(sent: Sent) -> None:
    priors = (prior(90.0, study_date=date(2020, 1, 1)), prior(113.0))
    said = numbers(built(sent(radiograph(), assessment(priors=priors)))[ReportKind.MEASUREMENTS])
    assert said["PRIOR-BA"] == (113.0, "mo")
    assert said["PRIOR-INT"] == (11.99, "mo")
    assert said["BA-CHANGE"] == (13.35, "mo")
    assert list(said)[:2] == ["85151-9", "371884006"]  # what viewers print stays in front


def test_between_two_models_there_is_no_coded_change(sent: Sent) -> None:
    other = ModelIdentity(name="boneage-test", version="1.0.0", sha256="ee" * 32)
    finding = assessment(priors=(prior(113.0, model=other),))
    said = numbers(built(sent(radiograph(), finding))[ReportKind.MEASUREMENTS])
    assert said["PRIOR-BA"] == (113.0, "mo")
    assert "BA-CHANGE" not in said


def test_without_earlier_exams_nothing_is_said_about_them(sent: Sent) -> None:
    assert "Exame anterior" not in texts(
        read(built(sent(radiograph(), assessment()))[ReportKind.NARRATIVE])
    )
    said = numbers(built(sent(radiograph(), assessment()))[ReportKind.MEASUREMENTS])
    assert not {"PRIOR-BA", "PRIOR-INT", "BA-CHANGE"} & set(said)


# --- revisions


def revised(finding: Assessment | Reason) -> Assessment | Reason:
    assert isinstance(finding, Assessment)
    newer = replace(finding.prediction.model, version="2.0.0")
    return replace(finding, prediction=replace(finding.prediction, model=newer))


def test_a_new_model_makes_documents_that_name_those_they_replace(sent: Sent) -> None:
    first = built(sent(hand(), assessment(), kinds=ALL))
    last = previous(tuple(first.values()))
    second = built(sent(hand(), revised(assessment()), kinds=ALL, previous=last))
    for kind, report in second.items():
        before, after = read(first[kind]), read(report)
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert after.SeriesInstanceUID == before.SeriesInstanceUID
        assert (before.InstanceNumber, after.InstanceNumber) == (1, 2)
    for kind in (ReportKind.MEASUREMENTS, ReportKind.NARRATIVE):
        assert "PredecessorDocumentsSequence" not in read(first[kind])
        assert replaced_by(second[kind]) == [first[kind].sop_instance_uid]


def replaced_by(report: ReportObject) -> list[str]:
    [study] = read(report).PredecessorDocumentsSequence
    assert study.StudyInstanceUID == read(report).StudyInstanceUID
    return [
        reference.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]


def test_the_same_finding_again_is_the_same_report(sent: Sent) -> None:
    first = tuple(built(sent(hand(), assessment(), kinds=ALL)).values())
    last = previous(first)
    assert SrReporter().build(sent(hand(), assessment(), kinds=ALL, previous=last)) == first
    second = SrReporter().build(sent(hand(), revised(assessment()), kinds=ALL, previous=last))
    again = previous(second, revision=2)
    request = sent(hand(), revised(assessment()), kinds=ALL, previous=again)
    assert SrReporter().build(request) == second


@pytest.mark.parametrize(
    "changed",
    [
        lambda finding: replace(
            finding, prediction=replace(finding.prediction, bone_age_months=126.4)
        ),
        lambda finding: replace(finding, z_score=-2.2),
        lambda finding: replace(finding, notes=(Note.RIGHT_HAND,)),
        lambda finding: replace(finding, priors=(prior(113.0),)),
    ],
    ids=["age", "z_score", "notes", "priors"],
)
def test_any_other_statement_is_another_report(
    sent: Sent, changed: Callable[[Assessment], Assessment]
) -> None:
    finding = assessment()
    assert isinstance(finding, Assessment)
    first = SrReporter().build(sent(radiograph(), finding))
    request = sent(radiograph(), changed(finding), previous=previous(first))
    second = SrReporter().build(request)
    assert not {m.sop_instance_uid for m in first} & {m.sop_instance_uid for m in second}
    assert replaced_by(second[0]) == [first[0].sop_instance_uid]


def test_another_drawing_of_the_same_statement_is_the_same_report(sent: Sent) -> None:
    finding = assessment()
    assert isinstance(finding, Assessment)
    first = SrReporter().build(sent(radiograph(), finding))
    prediction = replace(finding.prediction, saliency=None)
    request = sent(radiograph(), replace(finding, prediction=prediction), previous=previous(first))
    assert SrReporter().build(request) == first


def test_going_back_to_the_old_model_is_a_further_revision(sent: Sent) -> None:
    first = SrReporter().build(sent(radiograph(), assessment()))
    second = SrReporter().build(
        sent(
            radiograph(),
            revised(assessment()),
            previous=previous(first),
        )
    )
    third = SrReporter().build(
        sent(radiograph(), assessment(), previous=previous(second, revision=2))
    )
    uids = {made.sop_instance_uid for made in (*first, *second, *third)}
    assert len(uids) == 6
    assert [read(made).InstanceNumber for made in third] == [3, 3]
    assert replaced_by(third[0]) == [second[0].sop_instance_uid]


def test_what_is_no_longer_assessed_replaces_measurements_and_text(sent: Sent) -> None:
    first = SrReporter().build(sent(radiograph(), assessment()))
    last = previous(first)
    [narrative] = SrReporter().build(sent(radiograph(), Reason.INDETERMINATE, previous=last))
    assert replaced_by(narrative) == [made.sop_instance_uid for made in first]


def test_a_correction_that_moves_the_image_to_another_study_opens_new_series(sent: Sent) -> None:
    first = SrReporter().build(sent(radiograph(), assessment()))
    moved = radiograph()
    moved.StudyInstanceUID = "1.2.77"
    last = previous(first)
    request = sent(moved, assessment(), previous=last, content_sha256="cd" * 32)
    for before, after in zip(first, SrReporter().build(request), strict=True):
        document = read(after)
        assert document.StudyInstanceUID == "1.2.77"
        assert document.SeriesInstanceUID != before.series_instance_uid
        [study] = document.PredecessorDocumentsSequence
        assert study.StudyInstanceUID == radiograph().StudyInstanceUID
        [series] = study.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == before.series_instance_uid


def test_who_wants_measurements_only_is_told_in_words_why_there_are_none(sent: Sent) -> None:
    only = frozenset({ReportKind.MEASUREMENTS})
    assert set(built(sent(radiograph(), assessment(), kinds=only))) == only
    told = built(sent(radiograph(), Reason.SEX_MISSING, kinds=only))
    assert set(told) == {ReportKind.NARRATIVE}


def test_another_set_of_objects_is_another_report(sent: Sent) -> None:
    first = SrReporter().build(sent(hand(), assessment()))
    last = previous(first)
    second = SrReporter().build(sent(hand(), assessment(), kinds=ALL, previous=last))
    assert len(second) == 4
    assert not {made.sop_instance_uid for made in first} & {m.sop_instance_uid for m in second}


# --- character sets

NAMES = {
    ("ISO_IR 100",): "CONCEIÇÃO^JOSÉ",
    ("ISO_IR 144",): "Люкceмбypг",
    ("ISO_IR 6",): "Conceicao^Jose",
    ("ISO_IR 192",): "王^小東=王^小东",
    ("ISO 2022 IR 6", "ISO 2022 IR 87"): "Yamada^Tarou=山田^太郎=やまだ^たろう",
}


def source_in(character_set: tuple[str, ...]) -> Dataset:
    dataset = radiograph()
    dataset.SpecificCharacterSet = list(character_set)
    dataset.PatientName = NAMES[character_set]
    dataset.ReferringPhysicianName, dataset.StudyDescription = "A^B", "Mao"
    return dataset


@pytest.mark.parametrize("character_set", NAMES)
def test_every_character_set_becomes_utf_8(sent: Sent, character_set: tuple[str, ...]) -> None:
    for report in SrReporter().build(sent(source_in(character_set), assessment())):
        dataset = read(report)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == NAMES[character_set]


@pytest.mark.parametrize(
    ("character_set", "language", "kept"),
    [
        (("ISO_IR 100",), "pt-BR", True),
        (("ISO_IR 100",), "en", True),
        (("ISO_IR 144",), "en", True),
        (("ISO_IR 6",), "en", True),
        (("ISO_IR 6",), "pt-BR", False),
        (("ISO_IR 144",), "pt-BR", False),
        (("ISO_IR 192",), "pt-BR", True),
    ],
)
def test_a_character_set_is_kept_where_it_has_all_characters(
    sent: Sent, character_set: tuple[str, ...], language: str, kept: bool
) -> None:
    request = sent(
        source_in(character_set), assessment(), language=language, keep_character_set=True
    )
    dataset = read(built(request)[ReportKind.NARRATIVE])
    expected = character_set[0] if kept else "ISO_IR 192"
    assert dataset.SpecificCharacterSet == expected
    assert str(dataset.PatientName) == NAMES[character_set]
    if language == "pt-BR":
        assert "Idade óssea estimada" in texts(read(built(request)[ReportKind.NARRATIVE]))


def test_a_source_without_a_character_set_makes_utf_8(sent: Sent) -> None:
    dataset = radiograph()
    del dataset.SpecificCharacterSet
    dataset.PatientName, dataset.ReferringPhysicianName = "A^B", ""
    dataset.StudyDescription = "Mao"
    report = built(sent(dataset, assessment(), keep_character_set=True))[ReportKind.NARRATIVE]
    assert read(report).SpecificCharacterSet == "ISO_IR 192"
