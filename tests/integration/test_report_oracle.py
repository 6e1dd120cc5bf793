"""The node's SR documents are, byte for byte, those that highdicom and pydicom make."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from sr_templates import concepts
from sr_templates import highdicom_reports as oracle
from sr_templates.content import (
    AssessedContent,
    Box,
    Device,
    Model,
    NotAssessedContent,
    Predecessor,
    Prior,
    ReportContent,
)
from sr_templates.encoding import encode_file
from sr_templates.judge import differing_documents
from sr_templates.measurement_report import build_measurement_report
from sr_templates.narrative import build_narrative
from sr_templates.source import Source, read_source
from sr_templates.wording import LANGUAGES, wording

LETTERS = st.characters(min_codepoint=32, max_codepoint=0x3FF, exclude_categories=["Cc"])
LATIN = st.characters(min_codepoint=32, max_codepoint=0xFF, exclude_categories=["Cc"])
TEXT = st.text(LETTERS, max_size=70)
"""Backslashes, equals signs, carets and blanks at the ends too."""
WORDS = st.text(LATIN, min_size=1, max_size=20).map(lambda text: text.replace("\\", "/"))
UIDS = st.from_regex(r"[0-9][0-9.]{0,62}", fullmatch=True)
CHARACTER_SETS = [
    [],
    ["ISO_IR 100"],
    ["ISO_IR 101"],
    ["ISO_IR 192"],
    ["", "ISO 2022 IR 87"],
    ["ISO 2022 IR 6", "ISO 2022 IR 100"],
    ["nonsense"],
]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "PatientName": TEXT,
        "PatientID": TEXT,
        "IssuerOfPatientID": TEXT,
        "AccessionNumber": TEXT,
        "StudyID": TEXT,
        "PatientBirthDate": st.sampled_from(["20130229", "20120229", "x"]),
        "PatientSex": st.sampled_from(["F", "M", "O", "?"]),
        "PatientAge": st.sampled_from(["012Y", "1"]),
        "StudyDate": st.sampled_from(["19991231", "1.1.2020"]),
        "StudyTime": st.sampled_from(["10", "101112.5", "25"]),
        "StudyDescription": TEXT,
        "ReferringPhysicianName": TEXT,
        "TimezoneOffsetFromUTC": st.sampled_from(["-0330", "+1400", "0300"]),
        "PatientOrientation": st.sampled_from([["L", "F"], ["A", "FR"], ["L"]]),
        "ImagerPixelSpacing": st.lists(
            st.floats(0.001, 999).map(lambda mm: f"{mm:.9f}"[:16]), min_size=1, max_size=2
        ),
        "SyntheticData": st.sampled_from(["YES", "NO"]),
        "ImageLaterality": st.sampled_from(["L", "R", "B"]),
        "Rows": st.integers(300, 9999),
        "Columns": st.integers(300, 9999),
    },
)
FINITE = st.floats(-1e6, 1e6)
OPTIONAL = st.none() | FINITE


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """What may be read of any radiograph, sparse ones too."""
    dataset = Dataset()
    dataset.SOPClassUID = draw(st.sampled_from(list(concepts.MODALITIES)))
    with disable_value_validation():
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, draw(UIDS))
        dataset.Rows, dataset.Columns = 300, 300
        for keyword, value in draw(HEADERS).items():
            setattr(dataset, keyword, value)
        return replace(
            read_source(dataset), character_set=tuple(draw(st.sampled_from(CHARACTER_SETS)))
        )


@st.composite
def predecessors(draw: st.DrawFn, source: Source) -> tuple[Predecessor, ...]:
    """Of this study, or of another one."""
    study = draw(st.sampled_from([source.study_instance_uid, "2.25.9"]))
    kinds = draw(st.lists(st.sampled_from(["measurements", "narrative", "pdf"]), unique=True))
    return tuple(
        Predecessor(
            kind=kind,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
            sop_instance_uid=draw(UIDS),
            series_instance_uid=draw(UIDS),
            study_instance_uid=study,
        )
        for kind in kinds
    )


@st.composite
def common(draw: st.DrawFn, source: Source) -> dict[str, Any]:
    """What both kinds of content have."""
    moment = draw(st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)))
    return {
        "device": Device(
            name=draw(WORDS), manufacturer=draw(WORDS), model_name=draw(WORDS),
            software_version=draw(WORDS),
        ),
        "content_sha256": "ab" * 32,
        "language": draw(st.sampled_from(LANGUAGES)),
        "reported_at": source.local(moment),
        "synthetic": source.synthetic,
        "revision": draw(st.integers(1, 1000)),
        "predecessors": draw(predecessors(source)),
        "keep_character_set": draw(st.booleans()),
    }  # fmt: skip


PRIORS = st.builds(
    Prior,
    study_date=st.dates(date(1990, 1, 1)),
    months_before=FINITE,
    chronological_age_months=OPTIONAL,
    bone_age_months=st.floats(0, 240),
    same_model=st.booleans(),
)


@st.composite
def assessed(draw: st.DrawFn) -> tuple[Source, AssessedContent]:
    source = draw(sources())
    texts = wording("en").texts
    box = Box(
        left=draw(st.floats(-9, 100)), top=draw(st.floats(-9, 100)),
        right=draw(st.floats(101, 11000)), bottom=draw(st.floats(101, 11000)),
    )  # fmt: skip
    return source, AssessedContent(
        **draw(common(source)),
        model=draw(st.builds(Model, name=WORDS, version=WORDS, sha256=WORDS)),
        hand_box=box,
        saliency=None,
        bone_age_months=draw(st.floats(0, 240)),
        sd_months=draw(FINITE),
        sex=draw(st.sampled_from("FM")),
        laterality=draw(st.sampled_from("LRU")),
        view_position=draw(st.sampled_from(["", "PA", "AP"])),
        chronological_age_months=draw(st.none() | st.floats(0, 240)),
        difference_months=draw(OPTIONAL),
        population_sd_months=draw(OPTIONAL),
        z_score=draw(OPTIONAL),
        determination=draw(st.sampled_from(sorted(concepts.DETERMINATIONS))),
        reference_id=draw(WORDS),
        reference_title=draw(WORDS),
        reference_sd_months=(),
        notes=tuple(draw(st.lists(st.sampled_from(sorted(texts["note"])), unique=True))),
        priors=tuple(draw(st.lists(PRIORS, max_size=2))),
    )


@st.composite
def not_assessed(draw: st.DrawFn) -> tuple[Source, NotAssessedContent]:
    source = draw(sources())
    reason = draw(st.sampled_from(sorted(wording("en").texts["reason"])))
    return source, NotAssessedContent(**draw(common(source)), reason=reason)


def assert_equal(made: bytes, expected: Dataset) -> None:
    stated = dcmread(BytesIO(made)).SpecificCharacterSet
    assert oracle.data_set(made) == oracle.encoded(expected, stated)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes many minutes
)
@given(assessed())
def test_measurements_are_what_highdicom_makes(given: tuple[Source, AssessedContent]) -> None:
    with disable_value_validation():
        made = encode_file(build_measurement_report(*given))
        assert_equal(made, oracle.build_measurement_report(*given))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes many minutes
)
@given(assessed() | not_assessed())
def test_a_narrative_is_what_highdicom_makes(given: tuple[Source, ReportContent]) -> None:
    with disable_value_validation():
        made = encode_file(build_narrative(*given))
        assert_equal(made, oracle.build_narrative(*given))


def test_the_sample_of_doctor_is_what_highdicom_makes() -> None:
    assert differing_documents() == (6, [])


def test_a_document_that_highdicom_makes_otherwise_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = oracle.build_measurement_report

    def changed(source: Source, content: AssessedContent) -> Dataset:
        return theirs(source, replace(content, bone_age_months=1.0))

    monkeypatch.setattr(oracle, "build_measurement_report", changed)
    assert differing_documents() == (
        6,
        [f"AssessedContent measurements {language}" for language in LANGUAGES],
    )
