"""Reading the source image: tolerant where the standard allows it, never a changed identity."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from sr_templates.source import UnusableSource, read_source

TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
]
SECRET = "SEGREDO"


def minimal() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.1"
    return dataset


def with_value(keyword: str, value: object) -> Dataset:
    dataset = minimal()
    dataset.pop(keyword, None)
    with disable_value_validation():
        setattr(dataset, keyword, value)
    return dataset


def sent(dataset: Dataset) -> Dataset:
    """The data set as it comes off the wire: bytes until somebody looks."""
    file = BytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=False)
    file.seek(0)
    return dcmread(file, force=True)


def test_a_source_without_any_patient_or_study_attribute_is_enough() -> None:
    source = read_source(minimal())
    assert all(source.identity.get(keyword) == "" for keyword in TYPE_2)
    assert (source.rows, source.columns) == (0, 0)
    assert source.orientation is None
    assert source.spacing_mm is None
    assert not source.synthetic


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "AccessionNumber", "StudyID"])
def test_identifiers_are_repeated_even_when_longer_than_their_vr(keyword: str) -> None:
    text = "9" * 80
    with disable_value_validation():
        source = read_source(with_value(keyword, text))
    assert source.identity[keyword].value == text


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "AccessionNumber", "StudyID"])
@pytest.mark.parametrize(
    "text", [f"{SECRET}\n1", f"{SECRET}\x1b", SECRET * 1000, f"{SECRET}\ufffd"]
)
def test_an_identity_that_cannot_be_repeated_is_refused_without_quoting_it(
    keyword: str, text: str
) -> None:
    with disable_value_validation(), pytest.raises(UnusableSource, match=keyword) as refusal:
        read_source(with_value(keyword, text))
    assert SECRET not in str(refusal.value)


def test_a_name_outside_its_character_set_is_refused_not_mangled() -> None:
    dataset = minimal()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.add_new("PatientName", "PN", "CONCEIÇÃO^JOSÉ".encode("iso8859-1"))
    with (
        pytest.warns(UserWarning, match="Failed to decode"),
        pytest.raises(UnusableSource, match="Specific Character Set"),
    ):
        read_source(sent(dataset))


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", None])
def test_accents_arrive_in_every_declared_and_the_usual_undeclared_character_set(
    charset: str | None,
) -> None:
    dataset = minimal()
    encoding = "utf8" if charset == "ISO_IR 192" else "iso8859-1"
    if charset:
        dataset.SpecificCharacterSet = charset
    dataset.add_new("PatientName", "PN", "CONCEIÇÃO^JOSÉ".encode(encoding))
    assert str(read_source(sent(dataset)).identity.PatientName) == "CONCEIÇÃO^JOSÉ"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("uid", ["", "../../etc", "1" * 65])
def test_an_object_that_cannot_be_referred_to_is_refused(keyword: str, uid: str) -> None:
    with pytest.raises(UnusableSource, match=keyword):
        read_source(with_value(keyword, uid))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "20101332"),
        ("PatientBirthDate", "2010.05.03"),
        ("PatientSex", "X"),
        ("StudyDate", "99999999"),
        ("StudyTime", "998877"),
        ("StudyTime", "10:11:12"),
        ("ReferringPhysicianName", "A" * 80),
    ],
)
def test_a_value_that_is_no_value_of_its_type_becomes_empty(keyword: str, value: str) -> None:
    with disable_value_validation():
        assert read_source(with_value(keyword, value)).identity[keyword].value in ("", None)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientAge", "12"), ("StudyDescription", "a\nb"), ("TimezoneOffsetFromUTC", "-3")],
)
def test_an_optional_value_that_is_invalid_is_left_out(keyword: str, value: str) -> None:
    with disable_value_validation():
        assert keyword not in read_source(with_value(keyword, value)).identity


@pytest.mark.parametrize(
    ("orientation", "spacing"),
    [(None, None), ("", ""), (["L"], ["0.1"]), (["L", ""], ["0", "0.1"]), (["l", "f"], ["x", "1"])],
)
def test_incomplete_geometry_is_no_geometry(orientation: object, spacing: object) -> None:
    dataset = minimal()
    with disable_value_validation():
        dataset.PatientOrientation = orientation
        dataset.add_new("ImagerPixelSpacing", "LO", spacing)
        source = read_source(dataset)
    assert source.orientation is None
    assert source.spacing_mm is None


def test_complete_geometry_is_taken() -> None:
    dataset = minimal()
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [0.144, 0.145]
    dataset.Rows, dataset.Columns = 2000, 1600
    source = read_source(dataset)
    assert source.orientation == ("L", "F")
    assert source.spacing_mm == (0.144, 0.145)
    assert (source.rows, source.columns) == (2000, 1600)


@pytest.mark.parametrize(
    ("offset", "hour"), [("-0300", 9), ("+0530", 17), ("+0000", 12), ("nonsense", 12)]
)
def test_times_are_stated_in_the_time_zone_of_the_source(offset: str, hour: int) -> None:
    with disable_value_validation():
        source = read_source(with_value("TimezoneOffsetFromUTC", offset))
    assert source.local(datetime(2024, 1, 2, 12, tzinfo=UTC)).hour == hour


def test_a_source_in_utc_states_its_times_in_utc_wherever_the_node_stands() -> None:
    source = read_source(with_value("TimezoneOffsetFromUTC", "+0000"))
    brasilia = timezone(timedelta(hours=-3))
    local = source.local(datetime(2024, 1, 2, 9, tzinfo=brasilia))
    assert (local.hour, local.utcoffset()) == (12, timedelta(0))


def test_a_synthetic_image_is_recognised() -> None:
    assert read_source(with_value("SyntheticData", "YES")).synthetic
    assert not read_source(with_value("SyntheticData", "NO")).synthetic


def test_the_values_of_the_image_stay_as_they_are() -> None:
    dataset = minimal()
    before = sent(dataset).to_json()
    read_source(dataset)
    assert sent(dataset).to_json() == before
