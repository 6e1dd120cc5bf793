"""The report as a picture: the radiograph with the hand's box and where the model looked, the
report's words and the growth chart beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sr_templates import growth_chart
from sr_templates.content import AssessedContent, Box, Heatmap, ReportContent
from sr_templates.statements import Statements, statements
from sr_templates.wording import Wording, wording

SIZE = (1920, 1080)
"""Columns and rows of the picture: a whole screen of 1080 lines."""

_MARGIN = 40
_LEGEND_HEIGHT = 40
_IMAGE_SIZE = (620, SIZE[1] - 2 * _MARGIN - _LEGEND_HEIGHT)
_TEXT_LEFT = _MARGIN + _IMAGE_SIZE[0] + _MARGIN
_TEXT_WIDTH = SIZE[0] - _TEXT_LEFT - growth_chart.SIZE[0] - 2 * _MARGIN
_CHART_LEFT = _TEXT_LEFT + _TEXT_WIDTH + _MARGIN
_NOTICE_TOP = _MARGIN + growth_chart.SIZE[1] + _MARGIN
_BACKGROUND = (18, 20, 24)
_WHITE = (245, 245, 245)
_GREY = (170, 176, 184)
_AMBER = (255, 179, 0)
_LINE_HEIGHT = 1.3
_COOLEST, _WARM, _WARMEST = (110, 0, 40), (255, 90, 0), (255, 235, 120)
"""Colours of no, middle and most saliency."""
_MOST_OPAQUE = 0.55
"""Share of the colour where the model looked most: the bones stay visible below."""


@dataclass(frozen=True, kw_only=True)
class _Paragraph:
    text: str
    size: int
    colour: tuple[int, int, int]
    bold: bool = False
    gap: int = 8
    """Pixels below."""


def annotate(shown: Image.Image | None, content: ReportContent) -> Image.Image:
    """An RGB picture of 1920 x 1080 pixels with the words of the report.

    ``shown``: what :func:`radiograph` drew; None: no image is shown. Raises
    :class:`InvalidContent` for codes without a text.
    """
    said = statements(content)
    picture = Image.new("RGB", SIZE, _BACKGROUND)
    if shown is not None:
        left = _MARGIN + (_IMAGE_SIZE[0] - shown.width) // 2
        top = _MARGIN + (_IMAGE_SIZE[1] - shown.height) // 2
        picture.paste(shown, (left, top))
    chart = None
    if isinstance(content, AssessedContent):
        if shown is not None and content.saliency:
            _draw_legend(picture, wording(content.language))
        chart = growth_chart.growth_chart(content)
    if chart is not None:
        picture.paste(chart, (_CHART_LEFT, _MARGIN))
    _draw_text(picture, list(_words(said)), (_TEXT_LEFT, _MARGIN), _TEXT_WIDTH)
    notice_top = _MARGIN if chart is None else _NOTICE_TOP
    _draw_text(picture, list(_notices(said)), (_CHART_LEFT, notice_top), growth_chart.SIZE[0])
    return picture


def radiograph(pixels: NDArray[np.uint8], content: ReportContent) -> Image.Image:
    """The source image, RGB, at most 620 x 960; of an assessment with the hand's box and where the
    model looked.

    ``pixels``: shape (Rows, Columns), uint8, bright bones; the hand's box is in its coordinates.
    Raises ``ValueError`` for other arrays.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 of shape (Rows, Columns), got {pixels.dtype} {pixels.shape}"
        )
    rows, columns = pixels.shape
    scale = min(_IMAGE_SIZE[0] / columns, _IMAGE_SIZE[1] / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    shown = image.convert("RGB")
    if isinstance(content, AssessedContent):
        if content.saliency:
            _tint(shown, content.saliency, scale)
        edges = _edges(content.hand_box, scale)
        ImageDraw.Draw(shown).rectangle(edges, outline=_AMBER, width=3)
    return shown


def _edges(box: Box, scale: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels of the drawn radiograph."""
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    return round(left * scale), round(top * scale), round(right * scale), round(bottom * scale)


def _tint(radiograph: Image.Image, saliency: Heatmap, scale: float) -> None:
    """Lay the warm colours over the radiograph, the more opaque the more the model looked."""
    x0, y0, x1, y1 = _edges(saliency.box, scale)
    coarse = Image.fromarray(np.array(saliency.levels, dtype=np.uint8))
    smooth = coarse.resize((max(1, x1 - x0), max(1, y1 - y0)), Image.Resampling.BICUBIC)
    _lay_over(radiograph, smooth, (x0, y0))


def _lay_over(below: Image.Image, levels: Image.Image, place: tuple[int, int]) -> None:
    opacity = levels.point([round(level * _MOST_OPAQUE) for level in range(256)])
    colours = ImageOps.colorize(levels, black=_COOLEST, mid=_WARM, white=_WARMEST)
    below.paste(colours, place, opacity)


def _draw_legend(picture: Image.Image, words: Wording) -> None:
    """Below the radiograph: a scale from less to more, on the grey of bones."""
    draw = ImageDraw.Draw(picture)
    font = _roboto(19, bold=False)
    left, top = _MARGIN, SIZE[1] - _MARGIN - 24
    for key in ("looked", "less"):
        draw.text((left, top), words.text("picture", key), font=font, fill=_GREY)
        left += round(font.getlength(words.text("picture", key))) + 16
    scale = Image.linear_gradient("L").rotate(90).resize((200, 20))
    draw.rectangle((left, top + 2, left + 199, top + 21), fill=_GREY)
    _lay_over(picture, scale, (left, top + 2))
    draw.text((left + 216, top), words.text("picture", "more"), font=font, fill=_GREY)


def _words(said: Statements) -> Iterator[_Paragraph]:
    yield _Paragraph(text=said.title, size=30, colour=_GREY, gap=0)
    yield _Paragraph(text=said.headline, size=62, colour=_WHITE, bold=True, gap=12)
    yield _Paragraph(text=said.conclusion[-1], size=29, colour=_WHITE, gap=24)
    for sentence in said.findings:
        yield _Paragraph(text=sentence, size=25, colour=_WHITE)
    yield _Paragraph(text="", size=12, colour=_GREY, gap=0)
    for sentence in said.examination:
        yield _Paragraph(text=sentence, size=20, colour=_GREY, gap=4)


def _notices(said: Statements) -> Iterator[_Paragraph]:
    for sentence in said.notices:
        yield _Paragraph(text=sentence, size=26, colour=_AMBER, bold=True)


def _draw_text(
    picture: Image.Image, paragraphs: list[_Paragraph], origin: tuple[int, int], width: int
) -> None:
    """Write the paragraphs below each other, as large as they fit between ``origin`` and the lower
    margin."""
    room = SIZE[1] - _MARGIN - origin[1]
    for scale in (1.0, 0.9, 0.8, 0.7, 0.6):
        written = list(_written(paragraphs, scale, width))
        if written[-1].below <= room:
            break
    draw = ImageDraw.Draw(picture)
    for line in written:
        place = origin[0], origin[1] + line.top
        draw.text(place, line.text, font=line.font, fill=line.colour)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One line of text; ``top`` and ``below``: where it begins, and what comes next begins."""

    text: str
    font: ImageFont.FreeTypeFont
    colour: tuple[int, int, int]
    top: float
    below: float


def _written(paragraphs: list[_Paragraph], scale: float, width: int) -> Iterator[_Line]:
    below = 0.0
    for paragraph in paragraphs:
        font = _font(paragraph, scale)
        lines = _lines(paragraph.text, font, width)
        for number, text in enumerate(lines, 1):
            top, below = below, below + font.size * _LINE_HEIGHT
            below += paragraph.gap * scale if number == len(lines) else 0.0
            yield _Line(text=text, font=font, colour=paragraph.colour, top=top, below=below)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Words wrapped to a width in pixels; an empty text is one empty line. A word that is longer
    than that, such as a hash, is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += _pieces(word, font, width)
    return lines


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """A word in pieces of at most a width in pixels."""
    while font.getlength(word) > width:
        fits = next(n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= width)
        yield word[:fits]
        word = word[fits:]
    yield word


def _font(paragraph: _Paragraph, scale: float) -> ImageFont.FreeTypeFont:
    return _roboto(round(paragraph.size * scale), paragraph.bold)


@cache
def _roboto(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """Roboto, from the package font-roboto: Pillow's own font has no accents."""
    file = files("font_roboto") / "files" / f"Roboto-{'Bold' if bold else 'Regular'}.ttf"
    return ImageFont.truetype(BytesIO(file.read_bytes()), size)
