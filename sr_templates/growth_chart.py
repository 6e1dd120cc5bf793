"""The growth chart: bone age against chronological age with the reference band of the sex, this
exam and earlier ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sr_templates.content import AssessedContent
from sr_templates.wording import wording

SIZE = (560, 600)
"""Columns and rows of the chart."""

_DPI = 100
_MAX_YEARS = 20
_BACKGROUND, _WHITE, _GREY = "#121418", "#f5f5f5", "#aab0b8"
_GRID, _BAND, _AMBER = "#2c3138", "#35506b", "#ffb300"
_BAND_SDS = 2.0
_lock = threading.Lock()
"""matplotlib's figures belong to one thread at a time."""


@dataclass(frozen=True, kw_only=True)
class _Background:
    """A chart without results, drawn once for each table, sex and language."""

    axes: Axes
    canvas: FigureCanvasAgg
    drawn: Any


def growth_chart(content: AssessedContent) -> Image.Image | None:
    """RGB picture of :data:`SIZE`; None without chronological age, for then there is no place on
    the chart. Raises :class:`InvalidContent` for codes without a text."""
    age = content.chronological_age_months
    if age is None:
        return None
    with _lock:
        background = _background(
            content.language, content.sex, content.reference_title, content.reference_sd_months
        )
        background.canvas.restore_region(background.drawn)  # type: ignore[no-untyped-call]
        for artist in _results(background.axes, content, age):
            background.axes.draw_artist(artist)
            artist.remove()
        rgba = background.canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return Image.fromarray(np.asarray(rgba)[..., :3].copy())


def _results(axes: Axes, content: AssessedContent, age_months: float) -> list[Artist]:
    """The exam with the model's SD, and earlier exams joined to it."""
    known = [
        (prior.chronological_age_months, prior.bone_age_months)
        for prior in content.priors
        if prior.chronological_age_months is not None
    ]
    x, y = age_months / 12, content.bone_age_months / 12
    track = np.array([*known, (age_months, content.bone_age_months)]) / 12
    sd = content.sd_months / 12
    artists: list[Artist] = []
    if known:
        artists += axes.plot(track[:, 0], track[:, 1], color=_WHITE, linewidth=1.2, alpha=0.7)
        artists += axes.plot(track[:-1, 0], track[:-1, 1], **_PRIOR)
    artists += axes.plot([x, x], [y - sd, y + sd], color=_AMBER, linewidth=2)
    artists += axes.plot([x], [y], **_THIS)
    return artists


_PRIOR: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 8,
    "markerfacecolor": _BACKGROUND,
    "markeredgecolor": _WHITE,
    "markeredgewidth": 2,
}
_THIS: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 11,
    "color": _AMBER,
}


@cache
def _background(
    language: str, sex: str, title: str, sd_months: tuple[tuple[float, float], ...]
) -> _Background:
    words = wording(language)
    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.12, 0.1, 0.85, 0.7), facecolor=_BACKGROUND)
    rows = np.array(sd_months) / 12
    ages, spread = rows[:, 0], _BAND_SDS * rows[:, 1]
    font = _roboto()
    axes.fill_between(
        ages, ages - spread, ages + spread, color=_BAND, label=words.text("chart", "band")
    )
    axes.plot(ages, ages, color=_WHITE, linewidth=1.2, label=words.text("chart", "mean"))
    axes.plot([], [], label=words.text("chart", "this"), **_THIS)
    axes.plot([], [], label=words.text("chart", "prior"), **_PRIOR)
    axes.set(xlim=(0, _MAX_YEARS), ylim=(0, _MAX_YEARS))
    ticks = range(0, _MAX_YEARS + 1, 2)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    axes.tick_params(colors=_GREY, labelsize=11, labelfontfamily=font)
    labels: dict[str, Any] = {"color": _GREY, "fontsize": 12, "fontfamily": font}
    axes.set_xlabel(words.text("chart", "chronological_age"), **labels)
    axes.set_ylabel(words.text("chart", "bone_age"), **labels)
    figure.text(
        0.12, 0.965, words.text("chart", "title", sex=words.text("sex", sex)),
        color=_WHITE, fontsize=14, fontfamily=font, va="top",
    )  # fmt: skip
    figure.text(
        0.12, 0.915, words.text("chart", "reference", title=title),
        color=_GREY, fontsize=11, fontfamily=font, va="top",
    )  # fmt: skip
    axes.legend(
        loc="lower right", facecolor=_BACKGROUND, edgecolor=_GRID, labelcolor=_GREY,
        prop={"family": font, "size": 11},
    )  # fmt: skip
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = canvas.copy_from_bbox(figure.bbox)  # type: ignore[no-untyped-call]
    return _Background(axes=axes, canvas=canvas, drawn=drawn)


@cache
def _roboto() -> str:
    """The name of Roboto, from the package font-roboto, once matplotlib knows it."""
    with as_file(files("font_roboto") / "files" / "Roboto-Regular.ttf") as path:
        font_manager.fontManager.addfont(path)
        return font_manager.FontProperties(fname=path).get_name()
