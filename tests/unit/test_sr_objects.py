"""The picture and the page as objects, and the growth chart."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit

from dicom_node.adapters import reporter
from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.delivery import SOP_CLASSES, ReportKind
from dicom_node.domain.eligibility import Reason
from dicom_node.ports import ReportRequest
from sr_templates.picture import SIZE
from tests.builders.reports import (
    Sent,
    assessment,
    built,
    hand,
    prior,
    radiograph,
    read,
)

ALL = frozenset(ReportKind)


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
    assert ReportKind.CAPTURE not in built(sent(hand(), Reason.SEVERAL_HANDS, kinds=ALL))


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


def test_jpeg_of_the_capture_is_what_it_claims(sent: Sent) -> None:
    capture = built(sent(hand(), assessment(), kinds=ALL))[ReportKind.CAPTURE]
    dataset = dcmread(BytesIO(capture.encoded))
    start = dataset.PixelData.index(b"\xff\xd8")
    with Image.open(BytesIO(dataset.PixelData[start:])) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", SIZE, "RGB")
        assert image.layer[0][1:3] == (2, 1)  # type: ignore[attr-defined]  # sampling factors


def test_earlier_exams_stand_on_the_chart(sent: Sent) -> None:
    unplaced = prior(100.0, chronological_age_months=None)
    plain, placed, unknown = (
        chart_of(sent(hand(), assessment(priors=priors)))
        for priors in ((), (prior(113.0),), (unplaced,))
    )
    assert (placed != plain).any()
    assert np.array_equal(unknown, plain)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("sr_templates.capture.build_capture", OSError("no space for the font cache")),
        ("sr_templates.pdf.build_pdf", MemoryError()),
        ("dicom_node.adapters.reporter.display_pixels", OSError("cannot read")),
    ],
)
def test_what_cannot_be_drawn_does_not_hold_up_what_is_written(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(broken, fail)
    made = SrReporter().build(sent(hand(), assessment(), kinds=ALL))
    assert [item.kind for item in made] == [ReportKind.MEASUREMENTS, ReportKind.NARRATIVE]


def test_a_report_of_a_picture_alone_fails_with_it(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space for the font cache")

    monkeypatch.setattr("sr_templates.capture.build_capture", fail)
    request = sent(hand(), assessment(), kinds=frozenset({ReportKind.CAPTURE}))
    with pytest.raises(OSError, match="font cache"):
        SrReporter().build(request)
