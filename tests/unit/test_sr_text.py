"""The texts that a radiologist may edit: complete, equal in every language, and well formatted."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from importlib.resources import files
from string import Formatter
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts as dictionary
from pydicom.sr.coding import Code

from dicom_node.domain.assessment import Determination, Note
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.exam import Laterality, Sex
from sr_templates import concepts
from sr_templates.content import InvalidContent
from sr_templates.wording import LANGUAGES, wording

ENUMS = [
    ("reason", Reason),
    ("note", Note),
    ("determination", Determination),
    ("sex", Sex),
]


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def flat(language: str) -> dict[str, str]:
    file = files("sr_templates") / "text" / f"{language}.toml"
    sections = tomllib.loads(file.read_text(encoding="utf-8"))
    return {f"{s}.{key}": text for s, texts in sections.items() for key, text in texts.items()}


def all_codes() -> list[Code]:
    values = [v for name, v in vars(concepts).items() if name.isupper() or name == "_NO_IMAGE"]
    codes = [v for v in values if isinstance(v, Code)]
    for table in (v for v in values if isinstance(v, dict)):
        codes += table.values()
    return codes


def test_every_file_is_a_language_and_every_language_has_a_file() -> None:
    names = {path.name for path in (files("sr_templates") / "text").iterdir()}
    assert names == {f"{language}.toml" for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_languages_have_the_same_keys_and_placeholders(language: str) -> None:
    first = {key: placeholders(text) for key, text in flat(LANGUAGES[0]).items()}
    assert {key: placeholders(text) for key, text in flat(language).items()} == first


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_written_and_fits_latin_1(language: str) -> None:
    for key, text in flat(language).items():
        assert text.strip(), key
        assert text.encode("iso8859-1"), key


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("section", "enum"), ENUMS)
def test_every_code_has_a_text_and_every_text_a_code(
    language: str, section: str, enum: type[StrEnum]
) -> None:
    keys = {key.partition(".")[2] for key in flat(language) if key.startswith(f"{section}.")}
    assert keys == {member.value for member in enum}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_side_of_one_hand_has_a_text(language: str) -> None:
    keys = {key.partition(".")[2] for key in flat(language) if key.startswith("hand.")}
    assert keys == set(Laterality) - {Laterality.BOTH}


@pytest.mark.parametrize("language", LANGUAGES)
def test_series_descriptions_begin_with_ai_and_fit_their_vr(language: str) -> None:
    for name in ("measurements", "narrative"):
        text = wording(language).text("series", name)
        assert re.match(r"(IA|AI) ", text)
        assert len(text) <= 64


@pytest.mark.parametrize(
    ("language", "value", "plain", "signed"),
    [
        ("pt-BR", 14.3, "14,3", "+14,3"),
        ("pt-BR", -24.0, "-24,0", "-24,0"),
        ("pt-BR", -0.04, "0,0", "0,0"),
        ("en", 14.3, "14.3", "+14.3"),
        ("en", -1.678, "-1.7", "-1.7"),
    ],
)
def test_numbers_carry_the_separator_of_the_language(
    language: str, value: float, plain: str, signed: str
) -> None:
    assert wording(language).number(value) == plain
    assert wording(language).signed(value) == signed


@pytest.mark.parametrize(
    ("language", "months", "nearest", "completed"),
    [
        ("pt-BR", 126.0, "10 anos e 6 meses", "10 anos e 6 meses"),
        ("pt-BR", 126.94, "10 anos e 7 meses", "10 anos e 6 meses"),
        ("pt-BR", 126.96, "10 anos e 7 meses", "10 anos e 7 meses"),
        ("pt-BR", 131.8, "11 anos", "10 anos e 11 meses"),
        ("pt-BR", 13.0, "1 ano e 1 mês", "1 ano e 1 mês"),
        ("pt-BR", 12.0, "1 ano", "1 ano"),
        ("pt-BR", 7.4, "7 meses", "7 meses"),
        ("pt-BR", 0.2, "0 meses", "0 meses"),
        ("en", 150.0, "12 years and 6 months", "12 years and 6 months"),
        ("en", 1.0, "1 month", "1 month"),
    ],
)
def test_ages_are_said_in_years_and_months(
    language: str, months: float, nearest: str, completed: str
) -> None:
    assert wording(language).nearest_age(months) == nearest
    assert wording(language).completed_age(months) == completed


def test_times_state_their_offset() -> None:
    brasilia = timezone(timedelta(hours=-3))
    moment = datetime(2024, 3, 5, 14, 22, tzinfo=brasilia)
    assert wording("pt-BR").time(moment) == "05/03/2024 14:22 (UTC-03:00)"
    assert wording("en").time(moment.astimezone(UTC)) == "2024-03-05 17:22 (UTC+00:00)"


def test_a_code_without_a_text_is_refused_by_name() -> None:
    with pytest.raises(InvalidContent, match=r"reason\.unheard_of"):
        wording("en").text("reason", "unheard_of")


def test_a_language_without_a_file_is_refused() -> None:
    with pytest.raises(InvalidContent, match="pt-BR, en"):
        wording("../pt-BR")


def test_every_determination_and_side_has_its_code() -> None:
    assert set(concepts.DETERMINATIONS) == {d.value for d in Determination}
    assert set(concepts.LATERALITIES) == {Laterality.LEFT, Laterality.RIGHT}
    assert set(concepts.LANGUAGES) == set(LANGUAGES)


def test_coded_reasons_are_reasons_of_the_node() -> None:
    reasons = {reason.value for reason in Reason}
    assert set(concepts.REJECTIONS) <= reasons
    assert reasons >= concepts.ANALYSIS_FAILURES


def test_every_code_stands_once() -> None:
    named = [v for v in vars(concepts).values() if isinstance(v, Code)]
    tables = [concepts.LANGUAGES, concepts.LATERALITIES, concepts.DETERMINATIONS]
    codes = named + [code for table in tables for code in table.values()]
    pairs = [(code.value, code.scheme_designator) for code in codes]
    assert len(pairs) == len(set(pairs))


def test_codes_of_the_standard_carry_the_meaning_of_the_standard() -> None:
    checked = 0
    for code in set(all_codes()) - {concepts.SOURCE}:  # highdicom says "Source"
        entries: Any = dictionary.get(code.scheme_designator, {}).values()
        meanings = [entry[code.value][0] for entry in entries if code.value in entry]
        if meanings:
            assert code.meaning in meanings
            checked += 1
    assert checked > 20


def test_codes_fit_their_vr() -> None:
    for code in all_codes():
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64
