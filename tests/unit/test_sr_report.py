"""The Reporter: what was assessed can be read back, reasons are said, and what cannot be reported
is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sr.coding import Code

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import (
    Determination,
    HandBox,
    ModelIdentity,
    Note,
)
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.eligibility import Disposition, Ineligible, Reason, screen
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.exam import Header, Laterality
from dicom_node.ports import Reporter
from sr_templates import concepts
from tests.builders.reports import assessment, group_of, items, numbers, radiograph, read, texts

SECRET = "SEGREDO"
OPTIONAL = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "SpecificCharacterSet",
    "Manufacturer",
]


def codes(dataset: Dataset, name: Code) -> list[str]:
    return [
        item.ConceptCodeSequence[0].CodeValue
        for item in items(dataset)
        if "ConceptCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == name.value
    ]


def test_an_assessment_becomes_measurements_and_narrative(sent: Any) -> None:
    reporter: Reporter = SrReporter()
    measurements, narrative = reporter.build(sent(radiograph(), assessment()))
    assert measurements.kind is ReportKind.MEASUREMENTS
    assert read(measurements).SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert narrative.kind is ReportKind.NARRATIVE
    assert read(narrative).SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.22"
    for report in (measurements, narrative):
        dataset = read(report)
        assert report.sop_class_uid == dataset.SOPClassUID
        assert report.sop_instance_uid == dataset.SOPInstanceUID
        assert report.series_instance_uid == dataset.SeriesInstanceUID
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_every_number_can_be_read_back_from_the_measurement_group(sent: Any) -> None:
    measurements, _ = SrReporter().build(sent(radiograph(), assessment()))
    assert numbers(measurements) == {
        "85151-9": (126.35, "mo"),
        "371884006": (6.25, "mo"),
        "424144002": (150.0, "mo"),
        "BA-CA": (-23.65, "mo"),
        "121414": (14.3, "mo"),
        "121416": (-1.65, "1"),
    }
    (bone_age,) = group_of(measurements).get_measurements(concepts.BONE_AGE)
    assert bone_age.method == concepts.GREULICH_PYLE
    assert bone_age.unit.meaning == "month"


def test_every_number_is_a_direct_child_of_the_group(sent: Any) -> None:
    measurements, _ = SrReporter().build(sent(radiograph(), assessment()))
    (group,) = [
        item
        for item in items(read(measurements))
        if item.ConceptNameCodeSequence[0].CodeValue == "125007"
    ]
    assert sum(item.ValueType == "NUM" for item in group.ContentSequence) == 6
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"


def test_the_group_says_what_was_measured_where_and_by_whom(sent: Any) -> None:
    measurements, _ = SrReporter().build(sent(radiograph(), assessment()))
    group = group_of(measurements)
    (site,) = group.finding_sites
    assert site.value == concepts.HAND
    assert site.laterality == concepts.LATERALITIES["L"]
    said = texts(read(measurements))
    assert "boneage-test" in said
    assert "1.2.0" in said
    assert f"weights SHA-256: {'cd' * 32}" in said
    assert "reference table: greulich-pyle-v-vi (Greulich & Pyle 1959, V/VI)" in said
    assert "IA, não verificado" in group.tracking_identifier
    assert codes(read(measurements), Code("111000", "DCM", "")) == ["123110"]


def test_the_hand_is_a_closed_box_in_the_source_image(sent: Any) -> None:
    measurements, _ = SrReporter().build(sent(radiograph(), assessment()))
    region = group_of(measurements).roi
    assert region.graphic_type.value == "POLYLINE"
    corners = [[100, 120.5], [1500, 120.5], [1500, 1900], [100, 1900], [100, 120.5]]
    assert region.value.tolist() == corners
    source = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == "1.2.3.4"


def test_a_box_that_reaches_beyond_the_image_ends_at_its_edges(sent: Any) -> None:
    box = HandBox(left=-3, top=-0.5, right=1600.2, bottom=2001)
    finding = assessment(prediction=replace(assessment().prediction, hand_box=box))
    measurements, _ = SrReporter().build(sent(radiograph(), finding))
    corners = group_of(measurements).roi.value
    assert corners.min(axis=0).tolist() == [0, 0]
    assert corners.max(axis=0).tolist() == [1600, 2000]


@pytest.mark.parametrize(
    ("determination", "code"),
    [
        (Determination.DELAYED, "RDE1733.0"),
        (Determination.NORMAL, "RDE1733.1"),
        (Determination.ADVANCED, "RDE1733.2"),
        (Determination.OUTSIDE_REFERENCE, "RDE1733.3"),
        (Determination.NO_CHRONOLOGICAL_AGE, "RDE1733.4"),
    ],
)
def test_the_determination_is_coded(sent: Any, determination: Determination, code: str) -> None:
    finding = assessment(determination=determination)
    measurements, _ = SrReporter().build(sent(radiograph(), finding))
    assert codes(read(measurements), concepts.DETERMINATION) == [code]


def test_what_is_not_known_is_left_out(sent: Any) -> None:
    finding = assessment(
        chronological_age_months=None,
        difference_months=None,
        population_sd_months=None,
        z_score=None,
        determination=Determination.NO_CHRONOLOGICAL_AGE,
        laterality=Laterality.UNSTATED,
        view_position="",
        notes=(Note.BIRTH_DATE_MISSING, Note.LATERALITY_UNSTATED),
    )
    measurements, narrative = SrReporter().build(sent(radiograph(), finding))
    assert set(numbers(measurements)) == {"85151-9", "371884006"}
    assert group_of(measurements).finding_sites[0].laterality is None
    said = texts(read(narrative))
    assert "Idade cronológica na data do exame: não disponível." in said
    assert "mão (lado não informado)" in said
    assert "A data de nascimento não foi informada." in said
    assert "escore Z -" not in said


def test_the_narrative_says_everything_in_portuguese(sent: Any) -> None:
    finding = assessment(notes=(Note.AGE_DISAGREES,))
    _, narrative = SrReporter(device_name="node-7").build(sent(radiograph(), finding))
    said = texts(read(narrative))
    for sentence in (
        "Idade óssea estimada: 10 anos e 6 meses (126,3 meses).",
        "desvio-padrão preditivo de 6,2 meses",
        "Idade cronológica na data do exame: 12 anos e 6 meses (150,0 meses).",
        "Diferença (idade óssea - idade cronológica): -23,7 meses.",
        "sexo feminino: 14,3 meses; escore Z -1,65.",
        "Tabela de referência: Greulich & Pyle 1959, V/VI.",
        "Idade óssea dentro de 2 desvios-padrão da idade cronológica.",
        "Radiografia: mão esquerda, incidência PA.",
        f"Modelo: boneage-test, versão 1.2.0; SHA-256 dos pesos {'cd' * 32}.",
        "Atenção: a idade informada pelo equipamento",
        "Resultado gerado por inteligência artificial (boneage-node",
        "Não verificado por médico. Uso exclusivo em pesquisa; não utilizar para diagnóstico.",
        "por node-7.",
    ):
        assert sentence in said


def test_the_narrative_says_everything_in_english(sent: Any) -> None:
    measurements, narrative = SrReporter().build(sent(radiograph(), assessment(), language="en"))
    said = texts(read(narrative))
    assert "Estimated bone age: 10 years and 6 months (126.3 months)." in said
    assert "Z-score -1.65" in said
    assert "For research use only; not for diagnosis." in said
    assert read(narrative).SeriesDescription == "AI Bone Age - text"
    assert read(measurements).SeriesDescription == "AI Bone Age - result"
    assert codes(read(narrative), Code("121049", "DCM", "")) == ["en-US"]


def test_the_narrative_suits_text_viewers(sent: Any) -> None:
    _, narrative = SrReporter().build(sent(radiograph(), assessment()))
    dataset = read(narrative)
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    kinds = {item.ValueType for item in items(dataset)}
    assert kinds == {"CONTAINER", "TEXT", "CODE", "UIDREF"}
    containers = [dataset, *(i for i in items(dataset) if i.ValueType == "CONTAINER")]
    assert {container.ContinuityOfContent for container in containers} == {"SEPARATE"}
    headings = [c.ConceptNameCodeSequence[0].CodeValue for c in containers]
    assert headings == ["18748-4", "121064", "121070", "121072"]


def test_both_objects_are_marked_as_unverified_research_results_of_the_node(sent: Any) -> None:
    for number, report in enumerate(SrReporter().build(sent(radiograph(), assessment())), 901):
        dataset = read(report)
        assert dataset.CompletionFlag == "COMPLETE"
        assert dataset.VerificationFlag == "UNVERIFIED"
        assert dataset.PreliminaryFlag == "PRELIMINARY"
        assert dataset.ContentQualification == "RESEARCH"
        assert dataset.SeriesNumber == number
        assert dataset.SeriesDescription.startswith("IA Idade Óssea - ")
        (equipment,) = dataset.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert "Não verificado" in equipment.ContributionDescription
        assert "SyntheticData" not in dataset
        (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
        reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == "1.2.3.4"


def test_the_node_recognises_its_own_results(sent: Any) -> None:
    for report in SrReporter().build(sent(radiograph(), assessment())):
        dataset = read(report)
        header = Header(
            sop_class_uid=report.sop_class_uid,
            sop_instance_uid=report.sop_instance_uid,
            manufacturer_model_name=dataset.ManufacturerModelName,
        )
        verdict = screen(header)
        assert verdict == Ineligible(reason=Reason.OWN_RESULT, disposition=Disposition.IGNORE)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_becomes_a_narrative_that_gives_it(sent: Any, reason: Reason) -> None:
    (narrative,) = SrReporter().build(sent(radiograph(), reason))
    assert narrative.kind is ReportKind.NARRATIVE
    dataset = read(narrative)
    assert "Motivo: " in texts(dataset)
    assert "A idade óssea desta imagem não foi avaliada." in texts(dataset)
    assert "anos" not in texts(dataset).replace("0 a 19 anos", "")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.VIEW_NOT_FRONTAL, ["111225", "111209"]),
        (Reason.IMAGE_BLANK, ["111224", "111213"]),
        (Reason.HAND_INCOMPLETE, ["111224", "111209"]),
        (Reason.SEVERAL_HANDS, ["111224"]),
        (Reason.INDETERMINATE, ["111224"]),
        (Reason.NO_HAND_FOUND, ["111224"]),
        (Reason.SEX_MISSING, ["111225"]),
    ],
)
def test_reasons_are_coded_where_the_standard_has_a_code(
    sent: Any, reason: Reason, expected: list[str]
) -> None:
    (narrative,) = SrReporter().build(sent(radiograph(), reason))
    assert codes(read(narrative), concepts.FINDING) == expected


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "the model is not certain enough to state a bone age."),
        ("pt-BR", "o modelo não tem certeza suficiente para informar uma idade óssea."),
    ],
)
def test_an_indeterminate_result_is_said_in_words_and_without_a_number(
    sent: Any, language: str, sentence: str
) -> None:
    (narrative,) = SrReporter().build(sent(radiograph(), Reason.INDETERMINATE, language=language))
    dataset = read(narrative)
    assert sentence in texts(dataset)
    assert not any(item.ValueType == "NUM" for item in items(dataset))
    findings = [t for t in texts(dataset).splitlines() if sentence in t]
    assert len(findings) == 1
    assert not any(character.isdigit() for character in findings[0])


def test_what_was_found_in_the_pixels_stands_in_the_narrative(sent: Any) -> None:
    finding = assessment(notes=(Note.GREY_SCALE_INVERTED, Note.TWO_HANDS_LEFT_ASSESSED))
    _, narrative = SrReporter().build(sent(radiograph(), finding))
    said = texts(read(narrative))
    assert "A imagem mostra duas mãos; foi avaliada a esquerda." in said
    assert "A escala de cinza estava invertida" in said


def test_a_file_that_is_no_dicom_is_unreadable(sent: Any) -> None:
    request = sent(radiograph(), assessment())
    request.path.write_bytes(SECRET.encode() * 100)
    with pytest.raises(Permanent, match="cannot be read") as refusal:
        SrReporter().build(request)
    assert refusal.value.fault is Fault.UNREADABLE_OBJECT


def test_an_image_without_uids_is_unreadable_and_its_patient_is_not_named(sent: Any) -> None:
    dataset = radiograph()
    dataset.PatientName = SECRET
    del dataset.StudyInstanceUID
    with pytest.raises(Permanent, match="StudyInstanceUID") as refusal:
        SrReporter().build(sent(dataset, assessment()))
    assert refusal.value.fault is Fault.UNREADABLE_OBJECT
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"bone_age_months": float("nan")},
        {"sd_months": float("inf")},
        {"hand_box": HandBox(left=1700, top=0, right=1800, bottom=10)},
        {"hand_box": HandBox(left=10, top=0, right=10, bottom=10)},
        {"model": ModelIdentity(name="", version="1", sha256="")},
    ],
)
def test_content_that_cannot_be_reported_is_refused(sent: Any, change: dict[str, Any]) -> None:
    finding = assessment(prediction=replace(assessment().prediction, **change))
    with pytest.raises(Permanent) as refusal:
        SrReporter().build(sent(radiograph(), finding))
    assert refusal.value.fault is Fault.REPORT_INVALID


def test_an_unknown_language_is_refused(sent: Any) -> None:
    with pytest.raises(Permanent, match="pt-BR, en"):
        SrReporter().build(sent(radiograph(), assessment(), language="tlh"))


def test_documents_load_nothing_that_draws_and_warming_up_loads_it_when_told() -> None:
    script = (
        "import sys\n"
        "from dicom_node.adapters.reporter import SrReporter\n"
        "from dicom_node.domain.delivery import ReportKind\n"
        "drawing = {'matplotlib', 'reportlab'}\n"
        "SrReporter().warm(frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE}))\n"
        "assert drawing.isdisjoint(sys.modules)\n"
        "SrReporter().warm(frozenset(ReportKind))\n"
        "assert drawing <= set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
