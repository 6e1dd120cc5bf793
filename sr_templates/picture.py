"""The report as a picture: the radiograph with the hand's box and where the model looked, and the
report's words beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sr_templates.content import AssessedContent, Box, Heatmap, ReportContent
from sr_templates.statements import Statements, statements
from sr_templates.wording import Wording, wording

SIZE = (1600, 1000)
"""Columns and rows of the picture."""

_MARGIN = 40
_LEGEND_HEIGHT = 40
_IMAGE_SIZE = (780, SIZE[1] - 2 * _MARGIN - _LEGEND_HEIGHT)
_TEXT_LEFT = _MARGIN + _IMAGE_SIZE[0] + _MARGIN
_TEXT_WIDTH = SIZE[0] - _TEXT_LEFT - _MARGIN
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


def annotate(pixels: NDArray[np.uint8], content: ReportContent) -> Image.Image:
    """An RGB picture of 1600 x 1000 pixels.

    ``pixels``: the source image, shape (Rows, Columns), uint8, bright bones; the hand's box is in
    its coordinates. Raises ``ValueError`` for other arrays, :class:`InvalidContent` for codes
    without a text.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 of shape (Rows, Columns), got {pixels.dtype} {pixels.shape}"
        )
    said = statements(content)
    picture = Image.new("RGB", SIZE, _BACKGROUND)
    _draw_radiograph(picture, pixels, content if isinstance(content, AssessedContent) else None)
    _draw_text(picture, list(_paragraphs(said)))
    return picture


def _draw_radiograph(
    picture: Image.Image, pixels: NDArray[np.uint8], assessed: AssessedContent | None
) -> None:
    rows, columns = pixels.shape
    scale = min(_IMAGE_SIZE[0] / columns, _IMAGE_SIZE[1] / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    left = _MARGIN + (_IMAGE_SIZE[0] - size[0]) // 2
    top = _MARGIN + (_IMAGE_SIZE[1] - size[1]) // 2
    radiograph = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).convert("RGB")
    if assessed and assessed.saliency:
        _tint(radiograph, assessed.saliency, scale)
        _draw_legend(picture, wording(assessed.language))
    picture.paste(radiograph, (left, top))
    if assessed:
        x0, y0, x1, y1 = _edges(assessed.hand_box, scale)
        outline = (left + x0, top + y0, left + x1, top + y1)
        ImageDraw.Draw(picture).rectangle(outline, outline=_AMBER, width=3)


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


def _paragraphs(said: Statements) -> Iterator[_Paragraph]:
    yield _Paragraph(text=said.title, size=28, colour=_GREY, gap=0)
    yield _Paragraph(text=said.headline, size=60, colour=_WHITE, bold=True, gap=12)
    yield _Paragraph(text=said.conclusion[-1], size=28, colour=_WHITE, gap=24)
    for sentence in said.findings:
        yield _Paragraph(text=sentence, size=23, colour=_WHITE)
    yield _Paragraph(text="", size=12, colour=_GREY, gap=0)
    for sentence in said.examination:
        yield _Paragraph(text=sentence, size=19, colour=_GREY, gap=4)
    yield _Paragraph(text="", size=12, colour=_GREY, gap=0)
    for sentence in said.notices:
        yield _Paragraph(text=sentence, size=25, colour=_AMBER, bold=True)


def _draw_text(picture: Image.Image, paragraphs: list[_Paragraph]) -> None:
    """Write the paragraphs below each other, as large as they fit."""
    scales = (1.0, 0.9, 0.8, 0.7, 0.6)
    room = SIZE[1] - 2 * _MARGIN
    scale = next((s for s in scales if _height(paragraphs, s) <= room), scales[-1])
    draw = ImageDraw.Draw(picture)
    top = float(_MARGIN)
    for paragraph in paragraphs:
        font = _font(paragraph, scale)
        for line in _lines(paragraph.text, font):
            draw.text((_TEXT_LEFT, top), line, font=font, fill=paragraph.colour)
            top += font.size * _LINE_HEIGHT
        top += paragraph.gap * scale


def _height(paragraphs: list[_Paragraph], scale: float) -> float:
    height = 0.0
    for paragraph in paragraphs:
        font = _font(paragraph, scale)
        height += len(_lines(paragraph.text, font)) * font.size * _LINE_HEIGHT
        height += paragraph.gap * scale
    return height


def _lines(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Words wrapped to the width of the column; an empty text is one empty line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _TEXT_WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(paragraph: _Paragraph, scale: float) -> ImageFont.FreeTypeFont:
    return _roboto(round(paragraph.size * scale), paragraph.bold)


@cache
def _roboto(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """Roboto, from the package font-roboto: Pillow's own font has no accents."""
    file = files("font_roboto") / "files" / f"Roboto-{'Bold' if bold else 'Regular'}.ttf"
    return ImageFont.truetype(BytesIO(file.read_bytes()), size)
