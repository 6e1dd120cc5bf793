"""Codes in plain words, from the texts of the reports."""

from __future__ import annotations

from sr_templates.content import InvalidContent
from sr_templates.wording import wording

_SECTIONS = ("reason", "note")


def explain(code: str, language: str) -> str:
    """A reason's or note's sentence; the code itself when it has none."""
    for section in _SECTIONS:
        try:
            return wording(language).text(section, code)
        except InvalidContent:
            continue
    return code
