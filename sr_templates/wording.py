"""The report's words: one TOML file per language under ``sr_templates/text``, and its number
formats."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib.resources import files

from sr_templates.content import InvalidContent

LANGUAGES = ("pt-BR", "en")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Sentences and formats of one language. Every method raises :class:`InvalidContent` for a key
    that has no text."""

    language: str
    texts: Mapping[str, Mapping[str, str]]

    def text(self, section: str, key: str, **values: str) -> str:
        """The sentence of a key with its placeholders filled in."""
        try:
            return self.texts[section][key].format(**values)
        except KeyError as error:
            raise InvalidContent(
                f"sr_templates/text/{self.language}.toml: {section}.{key} cannot be written; "
                f"{error} is missing"
            ) from None

    def number(self, value: float, digits: int = 1) -> str:
        """A number with the decimal separator of the language, never a negative zero."""
        plain = f"{round(value, digits) + 0.0:.{digits}f}"
        return plain.replace(".", self.text("format", "decimal_separator"))

    def signed(self, value: float, digits: int = 1) -> str:
        """A number with its sign, ASCII only: a lost minus sign would turn its meaning round."""
        return ("+" if round(value, digits) > 0 else "") + self.number(value, digits)

    def time(self, moment: datetime) -> str:
        """An aware time with its offset from UTC."""
        offset = moment.strftime("%z")
        return self.text(
            "format",
            "zone",
            time=moment.strftime(self.text("format", "time")),
            offset=f"{offset[:3]}:{offset[3:5]}",
        )

    def date(self, day: date) -> str:
        """A calendar date."""
        return day.strftime(self.text("format", "date"))

    def nearest_age(self, months: float) -> str:
        """Years and months of an estimate: the nearest whole month of the value as it is shown."""
        return self._age(round(round(months, 1)))

    def completed_age(self, months: float) -> str:
        """Years and months of a chronological age: completed months of the value as it is shown."""
        return self._age(int(round(months, 1)))

    def _age(self, months: int) -> str:
        years, rest = divmod(months, 12)
        if years == 0:
            return self._count("month", rest)
        if rest == 0:
            return self._count("year", years)
        return self.text(
            "age",
            "years_and_months",
            years=self._count("year", years),
            months=self._count("month", rest),
        )

    def _count(self, unit: str, count: int) -> str:
        return self.text("age", f"{unit}_{'one' if count == 1 else 'other'}", count=str(count))


@cache
def wording(language: str) -> Wording:
    """The words of a language. Raises :class:`InvalidContent` for one that has no file."""
    if language not in LANGUAGES:
        raise InvalidContent(f"no texts for this language; known: {', '.join(LANGUAGES)}")
    source = files("sr_templates") / "text" / f"{language}.toml"
    return Wording(language=language, texts=tomllib.loads(source.read_text(encoding="utf-8")))
