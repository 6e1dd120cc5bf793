"""The picture and the page as objects, revised reports, earlier exams and character sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGBaseline8Bit

from dicom_node.adapters import reporter
from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import Assessment, ModelIdentity, PriorResult
from dicom_node.domain.delivery import SOP_CLASSES, ReportKind, ReportObject
from dicom_node.domain.eligibility import Reason
from dicom_node.ports import ReportRequest
from sr_templates.picture import SIZE
from tests.builders.reports import assessment, previous, radiograph, read, request_for

ALL = frozenset(ReportKind)
Sent = Callable[..., ReportRequest]


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    def request(dataset: Dataset, finding: Assessment | Reason, **changes: Any) -> ReportRequest:
        return request_for(tmp_path / "received.dcm", dataset, finding, **changes)

    return request


def hand(**values: Any) -> Dataset:
    """A radiograph with pixels."""
    dataset = radiograph()
    dataset.Rows, dataset.Columns = 320, 260
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.linspace(0, 4095, 320 * 260).astype(np.uint16).tobytes()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def built(request: ReportRequest) -> dict[ReportKind, ReportObject]:
    return {made.kind: made for made in SrReporter().build(request)}


def texts(report: ReportObject) -> str:
    def below(dataset: Dataset) -> list[str]:
        found = [dataset.TextValue] if "TextValue" in dataset else []
        for item in dataset.get("ContentSequence", []):
            found += below(item)
        return found

    return "\n".join(below(read(report)))


# --- the picture and the page


def test_every_wanted_object_is_built_in_its_own_series(sent: Sent) -> None:
    made = built(sent(hand(), assessment(), kinds=ALL))
    assert list(made) == list(ReportKind)
    assert len({read(report).SeriesInstanceUID for report in made.values()}) == 4
    assert [read(report).SeriesNumber for report in made.values()] == [901, 902, 903, 904]
    for kind, report in made.items():
        assert report.sop_class_uid == read(report).SOPClassUID == SOP_CLASSES[kind][0]


@pytest.mark.parametrize("kind", ReportKind)
def test_an_object_that_nobody_wants_is_not_built(sent: Sent, kind: ReportKind) -> None:
    assert set(built(sent(hand(), assessment(), kinds=ALL - {kind}))) == ALL - {kind}


def test_the_capture_is_the_picture_of_the_report(sent: Sent) -> None:
    request = sent(hand(ImageLaterality="L"), assessment(), kinds=ALL)
    capture = read(built(request)[ReportKind.CAPTURE])
    assert capture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert (capture.Columns, capture.Rows) == SIZE
    assert capture.BurnedInAnnotation == "YES"
    assert list(capture.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert capture.Laterality == "L"
    assert float(capture.LossyImageCompressionRatio) > 5
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == hand().SOPInstanceUID
    assert capture.ContentQualification == "RESEARCH"
    drawn = np.asarray(SrReporter().picture(request), dtype=int)
    assert np.abs(capture.pixel_array.astype(int) - drawn).mean() < 4


def test_the_page_is_a_pdf_that_says_what_the_report_says(sent: Sent) -> None:
    page = read(built(sent(hand(), assessment(), kinds=ALL))[ReportKind.PDF])
    encoded = page.EncapsulatedDocument[: page.EncapsulatedDocumentLength]
    assert encoded.startswith(b"%PDF-")
    assert encoded.rstrip().endswith(b"%%EOF")
    assert len(page.EncapsulatedDocument) % 2 == 0
    assert page.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert page.VerificationFlag == "UNVERIFIED"
    assert page.BurnedInAnnotation == "YES"
    assert page.Modality == "DOC"


def test_pictures_of_the_same_report_have_the_same_bytes(sent: Sent) -> None:
    request = sent(hand(), assessment(), kinds=ALL)
    assert SrReporter().build(request) == SrReporter().build(request)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_has_a_picture_and_a_page_too(sent: Sent, reason: Reason) -> None:
    made = built(sent(hand(), reason, kinds=ALL))
    assert set(made) == ALL - {ReportKind.MEASUREMENTS}


@pytest.mark.parametrize("reason", [Reason.IMAGE_TOO_LARGE, Reason.PIXELS_UNREADABLE])
def test_pixels_that_were_never_read_are_not_drawn(
    sent: Sent, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header alone decided, or they broke the decoder: they may be a trap."""

    def trap(_: Path) -> Any:
        raise MemoryError

    monkeypatch.setattr(reporter, "display_pixels", trap)
    assert ReportKind.CAPTURE in built(sent(hand(), reason, kinds=ALL))
    with pytest.raises(MemoryError):
        built(sent(hand(), Reason.INDETERMINATE, kinds=ALL))


def test_pixels_that_cannot_be_read_any_more_are_left_out(sent: Sent) -> None:
    assert "PixelData" not in radiograph()
    assert set(built(sent(radiograph(), assessment(), kinds=ALL))) == ALL


def test_a_picture_without_its_image_still_says_why(sent: Sent) -> None:
    capture = read(built(sent(hand(), Reason.SEX_MISSING, kinds=ALL))[ReportKind.CAPTURE])
    left = capture.pixel_array[:, :660].astype(int)
    assert np.ptp(left.reshape(-1, 3), axis=0).max() < 12
    assert np.ptp(capture.pixel_array[:, 700:].astype(int)) > 150


# --- the growth chart


def chart_of(request: ReportRequest) -> np.ndarray:
    return np.asarray(SrReporter().picture(request).crop((1320, 40, 1880, 640)), dtype=int)


AMBER = np.array([255, 179, 0])


def marked_at(chart: np.ndarray) -> tuple[float, float]:
    """Chronological and bone age in years where this exam stands; the axes span 0 to 20."""
    rows, columns = np.nonzero(np.abs(chart[:480, :] - AMBER).sum(axis=2) < 60)
    x = (columns.mean() - 0.12 * 560) / (0.85 * 560) * 20
    y = (600 * 0.9 - rows.mean()) / (0.7 * 600) * 20
    return x, y


@pytest.mark.parametrize(("age", "bone_age"), [(60.0, 72.0), (150.0, 126.0), (200.0, 216.0)])
def test_this_exam_stands_where_its_ages_are(sent: Sent, age: float, bone_age: float) -> None:
    known = assessment()
    finding = replace(
        known,
        chronological_age_months=age,
        prediction=replace(known.prediction, bone_age_months=bone_age),
    )
    x, y = marked_at(chart_of(sent(hand(), finding)))
    assert (x, y) == pytest.approx((age / 12, bone_age / 12), abs=0.15)


def test_without_chronological_age_there_is_no_chart(sent: Sent) -> None:
    finding = assessment(
        chronological_age_months=None, difference_months=None, z_score=None,
        population_sd_months=None,
    )  # fmt: skip
    image = chart_of(sent(hand(), finding))
    assert np.abs(image[200:, :] - image[-1, -1]).max() < 8


def test_the_chart_of_another_sex_table_or_language_is_another_one(sent: Sent) -> None:
    known = assessment()
    charts = [
        chart_of(sent(hand(), finding, language=language))
        for finding, language in (
            (known, "pt-BR"),
            (known, "en"),
            (replace(known, reference_sd_months=((12.0, 1.0), (180.0, 3.0))), "pt-BR"),
            (replace(known, reference_title="Another table"), "pt-BR"),
            (known, "pt-BR"),
        )
    ]
    assert np.array_equal(charts[0], charts[-1])
    assert all((charts[0] != other).any() for other in charts[1:-1])


# --- earlier exams


def prior(months: float, **changes: Any) -> PriorResult:
    values: dict[str, Any] = {
        "study_date": date(2021, 7, 1),
        "chronological_age_months": 138.0,
        "bone_age_months": months,
        "model": assessment().prediction.model,
    }
    return PriorResult(**{**values, **changes})


def test_the_last_earlier_exam_is_compared_in_words(sent: Sent) -> None:
    finding = assessment(priors=(prior(90.0, study_date=date(2020, 1, 1)), prior(113.0)))
    said = texts(built(sent(radiograph(), finding))[ReportKind.NARRATIVE])
    assert "Exame anterior de 01/07/2021: idade óssea de 9 anos e 5 meses (113,0 meses)." in said
    assert "Variação desde então: +13,3 meses em 12,0 meses." in said
    assert "outra versão do modelo" not in said
    english = built(sent(radiograph(), finding, language="en"))[ReportKind.NARRATIVE]
    assert "Earlier exam of 2021-07-01: bone age 9 years and 5 months" in texts(english)


def test_an_earlier_result_of_another_model_is_said_to_be_one(sent: Sent) -> None:
    other = ModelIdentity(name="boneage-test", version="1.0.0", sha256="ee" * 32)
    finding = assessment(priors=(prior(113.0, model=other),))
    assert "outra versão do modelo" in texts(
        built(sent(radiograph(), finding))[ReportKind.NARRATIVE]
    )


def test_without_earlier_exams_nothing_is_said_about_them(sent: Sent) -> None:
    assert "Exame anterior" not in texts(
        built(sent(radiograph(), assessment()))[ReportKind.NARRATIVE]
    )


def test_earlier_exams_stand_on_the_chart(sent: Sent) -> None:
    unplaced = prior(100.0, chronological_age_months=None)
    plain, placed, unknown = (
        chart_of(sent(hand(), assessment(priors=priors)))
        for priors in ((), (prior(113.0),), (unplaced,))
    )
    assert (placed != plain).any()
    assert np.array_equal(unknown, plain)


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
        assert "Idade óssea estimada" in texts(built(request)[ReportKind.NARRATIVE])


def test_a_source_without_a_character_set_makes_utf_8(sent: Sent) -> None:
    dataset = radiograph()
    del dataset.SpecificCharacterSet
    dataset.PatientName, dataset.ReferringPhysicianName = "A^B", ""
    dataset.StudyDescription = "Mao"
    report = built(sent(dataset, assessment(), keep_character_set=True))[ReportKind.NARRATIVE]
    assert read(report).SpecificCharacterSet == "ISO_IR 192"


def test_jpeg_of_the_capture_is_what_it_claims(sent: Sent) -> None:
    capture = built(sent(hand(), assessment(), kinds=ALL))[ReportKind.CAPTURE]
    dataset = dcmread(BytesIO(capture.encoded))
    start = dataset.PixelData.index(b"\xff\xd8")
    with Image.open(BytesIO(dataset.PixelData[start:])) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", SIZE, "RGB")
        assert image.layer[0][1:3] == (2, 1)  # type: ignore[attr-defined]  # sampling factors
