"""The report on one page, as Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage
from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader, simpleSplit
from reportlab.pdfgen.canvas import Canvas

from sr_templates.capture import source_reference
from sr_templates.content import AssessedContent, ReportContent
from sr_templates.document import PDF, instance
from sr_templates.encoding import Item
from sr_templates.growth_chart import growth_chart
from sr_templates.source import Source
from sr_templates.statements import Statements, statements

rl_config.useA85 = 0  # streams as bytes: the text encoding is slow and a quarter larger
_WIDTH: float = A4[0]
_HEIGHT: float = A4[1]
_MARGIN: float = 18 * mm
_PICTURE_HEIGHT: float = 92 * mm
_GAP: float = 6 * mm
_LINE_HEIGHT = 1.3
_REGULAR, _BOLD = "Helvetica", "Helvetica-Bold"
"""Two of the fonts that every PDF reader has; the texts keep to ISO 8859-1, which these cover."""


def build_pdf(source: Source, content: ReportContent, shown: Image.Image | None) -> Item:
    """The whole object. ``shown`` as in :func:`sr_templates.picture.annotate`."""
    said = statements(content)
    page = draw_page(said, content, shown)
    document: Item = {
        "SOPClassUID": EncapsulatedPDFStorage,
        "Modality": "DOC",
        "ConversionType": "WSD",
        "AcquisitionDateTime": None,
        "BurnedInAnnotation": "YES",
        "SourceInstanceSequence": [source_reference(source)],
        "DocumentTitle": said.title,
        "ConceptNameCodeSequence": [],
        "VerificationFlag": "UNVERIFIED",
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "EncapsulatedDocumentLength": len(page),
        "EncapsulatedDocument": page,
    }
    return instance(PDF, source, content, document)


def draw_page(said: Statements, content: ReportContent, shown: Image.Image | None) -> bytes:
    """A PDF of one A4 page; the same report gives the same bytes."""
    with BytesIO() as file:
        canvas = Canvas(file, pagesize=A4, invariant=1)
        canvas.setTitle(said.title)
        top = _draw_pictures(canvas, list(_pictures(content, shown)))
        _draw_text(canvas, list(_paragraphs(said)), top)
        canvas.save()
        return file.getvalue()


def _pictures(content: ReportContent, shown: Image.Image | None) -> Iterator[Image.Image]:
    if shown is not None:
        yield shown
    if isinstance(content, AssessedContent):
        chart = growth_chart(content)
        if chart is not None:
            yield chart


def _draw_pictures(canvas: Canvas, pictures: list[Image.Image]) -> float:
    """The pictures side by side, equally high; returns where the text begins."""
    if not pictures:
        return _HEIGHT - _MARGIN
    ratios = [picture.width / picture.height for picture in pictures]
    free = _WIDTH - 2 * _MARGIN - _GAP * (len(pictures) - 1)
    height = min(_PICTURE_HEIGHT, free / sum(ratios))
    left, bottom = _MARGIN, _HEIGHT - _MARGIN - height
    for picture, ratio in zip(pictures, ratios, strict=True):
        with BytesIO() as coded:
            picture.save(coded, "JPEG", quality=90)
            coded.seek(0)
            canvas.drawImage(ImageReader(coded), left, bottom, height * ratio, height)
        left += height * ratio + _GAP
    return bottom - _GAP


def _paragraphs(said: Statements) -> Iterator[tuple[str, str, float]]:
    """Text, font and size in points, in order; an empty text is a gap."""
    yield said.title, _REGULAR, 12
    yield said.headline, _BOLD, 20
    yield said.conclusion[-1], _BOLD, 11
    yield "", _REGULAR, 5
    for sentence in said.findings:
        yield sentence, _REGULAR, 10
    yield "", _REGULAR, 5
    for sentence in said.examination:
        yield sentence, _REGULAR, 8
    yield "", _REGULAR, 5
    for sentence in said.notices:
        yield sentence, _BOLD, 10


def _draw_text(canvas: Canvas, paragraphs: list[tuple[str, str, float]], top: float) -> None:
    """The paragraphs below each other, as large as they fit on the page."""
    scales = (1.0, 0.9, 0.8, 0.7, 0.6)
    room = top - _MARGIN
    scale = next((s for s in scales if _height(paragraphs, s) <= room), scales[-1])
    for text, font, size in paragraphs:
        canvas.setFont(font, size * scale)
        for line in _lines(text, font, size * scale):
            top -= size * scale * _LINE_HEIGHT
            canvas.drawString(_MARGIN, top, line)


def _height(paragraphs: list[tuple[str, str, float]], scale: float) -> float:
    return sum(
        len(_lines(text, font, size * scale)) * size * scale * _LINE_HEIGHT
        for text, font, size in paragraphs
    )


def _lines(text: str, font: str, size: float) -> list[str]:
    lines: list[str] = simpleSplit(text, font, size, _WIDTH - 2 * _MARGIN)
    return lines or [""]
