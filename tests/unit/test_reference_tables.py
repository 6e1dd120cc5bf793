"""The population tables: every row, the two that are confused with each other, and unknown ids."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

import dicom_node
from dicom_node.adapters.reference_tables import (
    load_reference_table,
    reference_table_ids,
)
from dicom_node.domain.assessment import (
    Assessment,
    Determination,
    HandBox,
    ModelIdentity,
    Prediction,
    assess,
)
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.exam import Laterality, Sex
from dicom_node.settings import Settings

FOLDER = Path(dicom_node.__file__).parent.parent / "config" / "reference"

V_VI_AGES = "12 18 24 30 36 42 48 54 60 66 72 84 96 108 120 132 144 156 168 180 192 204"  # months
BRUSH_AGES = "3 6 9 12 18 24 30 36 42 48 54 60 72 84 96 108 120 132 144 156 168 180 192 204"
SD_MONTHS = {
    ("greulich-pyle-v-vi", Sex.MALE): (
        V_VI_AGES,
        "2.1 2.7 4.0 5.4 6.0 6.6 7.0 7.8 8.4 9.1 9.3 10.1 10.8 11.0 11.4 10.5 10.4 11.1 12.0 14.2"
        " 15.1 15.4",
    ),
    ("greulich-pyle-v-vi", Sex.FEMALE): (
        V_VI_AGES.removesuffix(" 192 204"),
        "2.7 3.4 4.0 4.8 5.6 6.5 7.2 8.0 8.6 8.9 9.0 8.3 8.8 9.3 10.8 12.3 14.0 14.6 12.6 11.2",
    ),
    ("brush-foundation", Sex.MALE): (
        BRUSH_AGES,
        "0.69 1.13 1.43 1.97 3.52 3.92 4.52 5.08 5.40 6.66 8.36 8.79 9.17 8.91 9.10 9.00 9.79"
        " 10.09 10.38 10.44 10.72 11.32 12.86 13.05",
    ),
    ("brush-foundation", Sex.FEMALE): (
        BRUSH_AGES.removesuffix(" 204"),
        "0.72 1.16 1.36 1.77 3.49 4.64 5.37 5.97 7.48 8.98 10.73 11.65 10.23 9.64 10.23 10.74"
        " 11.73 11.94 10.24 10.67 11.30 9.23 7.31",
    ),
}
BRUSH_MEANS = {
    "male": "3.01 6.09 9.56 12.74 19.36 25.97 32.40 38.21 43.89 49.04 56.00 62.43 75.46 88.20"
    " 101.38 113.90 125.68 137.32 148.82 158.39 170.02 182.72 195.32 206.21",
    "female": "3.02 6.04 9.05 12.04 18.22 24.16 30.96 36.63 43.50 50.14 60.06 66.21 78.50 89.30"
    " 100.66 113.86 125.66 137.86 149.62 162.28 174.25 183.62 189.44",
}
ROWS = [
    (table_id, sex, float(age), float(sd))
    for (table_id, sex), (ages, sds) in SD_MONTHS.items()
    for age, sd in zip(ages.split(), sds.split(), strict=True)
]


def assessed(reference_id: str, *, bone_age: float, age: float) -> Assessment:
    prediction = Prediction(
        findings=(),
        saliency=None,
        bone_age_months=bone_age,
        sd_months=6.0,
        hand_box=HandBox(left=0, top=0, right=1, bottom=1),
        model=ModelIdentity(name="m", version="1", sha256="0" * 64),
    )
    return assess(
        prediction,
        sex=Sex.FEMALE,
        laterality=Laterality.LEFT,
        view_position="PA",
        chronological_age_months=age,
        reference=load_reference_table(reference_id),
        notes=(),
    )


@pytest.mark.parametrize(("table_id", "sex", "age", "sd"), ROWS)
def test_every_row_is_the_published_one(table_id: str, sex: Sex, age: float, sd: float) -> None:
    assert load_reference_table(table_id).sd_at(sex, age) == sd


@pytest.mark.parametrize(("table_id", "sex"), SD_MONTHS)
def test_no_row_is_missing_or_extra_and_ages_ascend(table_id: str, sex: Sex) -> None:
    rows = load_reference_table(table_id).sd_months[sex]
    assert list(rows) == [(age, sd) for t, s, age, sd in ROWS if (t, s) == (table_id, sex)]
    assert all(age < later for (age, _), (later, _) in pairwise(rows))


@pytest.mark.parametrize(("table_id", "sex"), SD_MONTHS)
def test_nothing_is_extrapolated(table_id: str, sex: Sex) -> None:
    table = load_reference_table(table_id)
    first, last = table.sd_months[sex][0][0], table.sd_months[sex][-1][0]
    assert table.sd_at(sex, first - 0.01) is None
    assert table.sd_at(sex, last + 0.01) is None


def test_table_vi_ends_for_girls_where_table_v_goes_on_for_boys() -> None:
    table = load_reference_table("greulich-pyle-v-vi")
    assert table.sd_at(Sex.FEMALE, 192) is None
    assert table.sd_at(Sex.MALE, 192) == 15.1


def test_the_means_of_the_brush_foundation_are_kept_for_the_record() -> None:
    table = tomllib.loads((FOLDER / "brush-foundation.toml").read_text(encoding="utf-8"))
    for sex, means in BRUSH_MEANS.items():
        assert [row["mean_months"] for row in table[sex]] == [float(m) for m in means.split()]


def test_the_same_girl_is_normal_by_one_table_and_delayed_by_the_other() -> None:
    by_v_vi = assessed("greulich-pyle-v-vi", bone_age=126, age=150)
    by_brush = assessed("brush-foundation", bone_age=126, age=150)
    assert by_v_vi.population_sd_months == pytest.approx(14.3)
    assert by_v_vi.z_score == pytest.approx(-1.68, abs=0.005)
    assert by_v_vi.determination is Determination.NORMAL
    assert by_brush.population_sd_months == pytest.approx(10.455)
    assert by_brush.z_score == pytest.approx(-2.30, abs=0.005)
    assert by_brush.determination is Determination.DELAYED


def test_the_report_can_tell_the_tables_apart() -> None:
    tables = [load_reference_table(table_id) for table_id in reference_table_ids()]
    assert {table.table_id for table in tables} == set(reference_table_ids())
    assert len({table.title for table in tables}) == len(tables)
    assert all(table.citation for table in tables)


def test_the_default_of_the_configuration_exists() -> None:
    default = Settings().inference.reference
    assert load_reference_table(default).table_id == default


@pytest.mark.parametrize("table_id", ["brush", "", "../node", "greulich-pyle-v-vi.toml"])
def test_an_unknown_table_is_refused_with_the_known_ones(table_id: str) -> None:
    with pytest.raises(Permanent, match="brush-foundation, greulich-pyle-v-vi") as caught:
        load_reference_table(table_id)
    assert caught.value.fault is Fault.REPORT_INVALID
