"""Headers are read tolerantly, and what cannot be read is an error without header values."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
import warnings
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.domain.audit import Subject
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Header, Laterality
from dicom_node.domain.receipt import Identity
from dicom_node.headers import read_header, read_identity, read_subject, subject_in
from tests.builders.dicom_files import hand_dataset, write_file


def header_of(folder: Path, **values: Any) -> Header:
    return read_header(write_file(folder / "object.dcm", hand_dataset(**values)))


def code_item(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    return item


def test_every_attribute_has_its_place(tmp_path: Path) -> None:
    equipment = Dataset()
    equipment.ManufacturerModelName = "Workstation"
    dataset = hand_dataset(
        Manufacturer="Maker",
        ManufacturerModelName="Detector ",
        ContributingEquipmentSequence=Sequence([equipment]),
        ImageType=["ORIGINAL", "primary", ""],
        ConversionType="WSD",
        BurnedInAnnotation="NO",
        NumberOfFrames="1",
        AnatomicRegionSequence=Sequence([code_item("85562004", "SCT")]),
        ProtocolName="Mão e punho",
        StudyDescription=" ",
        SeriesDescription="PA",
        ViewPosition="PA",
        ViewCodeSequence=Sequence([code_item("399348003", "SCT")]),
        ImageLaterality="R",
        PatientAge="010Y",
    )
    header = read_header(write_file(tmp_path / "object.dcm", dataset))
    assert header == Header(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        modality="CR",
        manufacturer="Maker",
        manufacturer_model_name="Detector",
        contributing_equipment=("Workstation",),
        image_type=("ORIGINAL", "PRIMARY"),
        conversion_type="WSD",
        burned_in_annotation="NO",
        photometric_interpretation="MONOCHROME2",
        samples_per_pixel=1,
        number_of_frames=1,
        rows=64,
        columns=64,
        body_part_examined="HAND",
        anatomic_region_codes=("SCT:85562004",),
        descriptions=("Mão e punho", "PA"),
        view_position="PA",
        view_codes=("SCT:399348003",),
        laterality=Laterality.RIGHT,
        sex="F",
        birth_date=date(2016, 3, 2),
        study_date=date(2026, 3, 2),
        patient_age_months=120.0,
        patient_id="ZZCANARY",
        invalid=(),
    )


def test_an_empty_data_set_gives_an_empty_header(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.3", "1.2.3.4"
    header = read_header(write_file(tmp_path / "object.dcm", dataset))
    assert header == Header(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.4")


@pytest.mark.parametrize("text", ["20160302", "2016.03.02", "2016-03-02"])
def test_dates_of_old_devices_are_read(tmp_path: Path, text: str) -> None:
    assert header_of(tmp_path, PatientBirthDate=text).birth_date == date(2016, 3, 2)


def with_raw(folder: Path, keyword: str, vr: bytes, old: bytes, new: bytes) -> Path:
    """A file in which an element's value is replaced by another of the same length."""
    path = write_file(folder / "object.dcm", hand_dataset())
    content = path.read_bytes()
    element = vr + len(old).to_bytes(2, "little")
    assert content.count(element + old) == 1, keyword
    path.write_bytes(content.replace(element + old, element + new))
    return path


@pytest.mark.parametrize(
    "text", [b"2016\x0302", b"20161302", b"UNKNOWN ", b"2016.3.2", b"00000000"]
)
def test_an_unreadable_date_is_none_and_named(tmp_path: Path, text: bytes) -> None:
    header = read_header(with_raw(tmp_path, "PatientBirthDate", b"DA", b"20160302", text.ljust(8)))
    assert header.birth_date is None
    assert header.invalid == ("PatientBirthDate",)


def test_the_first_readable_of_three_dates_is_the_study_date(tmp_path: Path) -> None:
    header = header_of(tmp_path, StudyDate="", AcquisitionDate="20260301", ContentDate="20260228")
    assert header.study_date == date(2026, 3, 1)


@pytest.mark.parametrize(
    ("age", "months"), [("010Y", 120.0), ("018M", 18.0), ("004W", 0.92), ("045D", 1.48)]
)
def test_ages_are_read_in_every_unit(tmp_path: Path, age: str, months: float) -> None:
    assert header_of(tmp_path, PatientAge=age).patient_age_months == pytest.approx(months, abs=0.01)


@pytest.mark.parametrize(
    ("image", "series", "side"),
    [
        ("L", "", Laterality.LEFT),
        ("", "R", Laterality.RIGHT),
        ("B", "L", Laterality.BOTH),
        ("U", "R", Laterality.RIGHT),
        ("LAT", "R", Laterality.RIGHT),
        ("U", "", Laterality.UNSTATED),
        ("", "", Laterality.UNSTATED),
        ("LEFT", "", Laterality.LEFT),
        ("right", "", Laterality.RIGHT),
        ("BOTH", "", Laterality.BOTH),
        (["L", "R"], "", Laterality.BOTH),
        ("", ["R", "L"], Laterality.BOTH),
        (["R", "R"], "", Laterality.RIGHT),
        ("LAT", "", Laterality.UNSTATED),
        ("RADIUS", "BONE", Laterality.UNSTATED),
    ],
)
def test_the_images_side_comes_before_the_series(
    tmp_path: Path, image: str | list[str], series: str | list[str], side: Laterality
) -> None:
    assert header_of(tmp_path, ImageLaterality=image, Laterality=series).laterality is side


@pytest.mark.parametrize(("charset", "codec"), [("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8")])
def test_portuguese_texts_are_read_in_their_character_set(
    tmp_path: Path, charset: str, codec: str
) -> None:
    dataset = hand_dataset(SpecificCharacterSet=charset, StudyDescription="IDADE ÓSSEA mão")
    path = write_file(tmp_path / "object.dcm", dataset)
    assert "IDADE ÓSSEA mão".encode(codec) in path.read_bytes()
    assert read_header(path).descriptions == ("IDADE ÓSSEA mão",)


def test_an_unknown_character_set_hides_no_other_attribute(tmp_path: Path) -> None:
    path = write_file(tmp_path / "object.dcm", hand_dataset(SpecificCharacterSet="ISO_IR 192"))
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"ISO_IR 999"))
    header = read_header(path)
    assert (header.sex, header.rows) == ("F", 64)


@pytest.mark.parametrize(
    ("keyword", "vr", "old", "new"),
    [
        ("PatientSex", b"CS", b"F ", b"\xff\xfe"),
        ("Rows", b"US", (64).to_bytes(2, "little"), b"\x00\x00"),
        ("BodyPartExamined", b"CS", b"HAND", b"\x00\x00\x00\x00"),
    ],
)
def test_odd_values_do_not_hide_the_others(
    tmp_path: Path, keyword: str, vr: bytes, old: bytes, new: bytes
) -> None:
    if keyword == "Rows":  # Columns holds the same value
        path = write_file(tmp_path / "object.dcm", hand_dataset(Rows=0))
    else:
        path = with_raw(tmp_path, keyword, vr, old, new)
    assert read_header(path).modality == "CR"


@pytest.mark.parametrize("value", ["abc", "1.5", "9" * 5000])
def test_a_frame_count_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    dataset = hand_dataset()
    dataset.add_new("NumberOfFrames", "LO", value)  # Implicit VR hides the wrong type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_file(
            tmp_path / "object.dcm", dataset, transfer_syntax_uid=ImplicitVRLittleEndian
        )
    header = read_header(path)
    assert header.number_of_frames is None
    assert header.invalid == ("NumberOfFrames",)


def test_a_value_of_megabytes_is_not_converted(tmp_path: Path) -> None:
    dataset = hand_dataset()
    dataset.add_new("NumberOfFrames", "UT", "1\\" * 4_000_000)
    path = write_file(tmp_path / "object.dcm", dataset, transfer_syntax_uid=ImplicitVRLittleEndian)
    header = read_header(path)
    assert "NumberOfFrames" in header.invalid
    assert header.rows == 64


def nested(depth: int) -> bytes:
    """An item in an item in an item… of Contributing Equipment Sequence, undefined lengths."""
    tag = bytes.fromhex("1800 01A0") + b"SQ\0\0" + b"\xff" * 4
    item = bytes.fromhex("FEFF 00E0") + b"\xff" * 4
    return (tag + item) * depth


def hostile(folder: Path, name: str) -> Path:
    path = write_file(folder / f"{name}.dcm", hand_dataset())
    whole = path.read_bytes()
    head = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    contents = {
        "empty": b"",
        "preamble": whole[:132],
        "pdf": b"%PDF-1.7\nZZCANARY " * 100,
        "random": os.urandom(4096),
        "meta_only_prefix": b"\0" * 128 + b"DICM" + b"ZZCANARY" * 10,
        "nested": head + nested(5000),
    }
    path.write_bytes(contents[name])
    return path


@pytest.mark.parametrize(
    "name", ["empty", "preamble", "pdf", "random", "meta_only_prefix", "nested"]
)
def test_what_is_no_dicom_file_is_a_permanent_error_without_values(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = hostile(tmp_path, name)
    with caplog.at_level(logging.DEBUG), pytest.raises(Permanent) as caught:
        read_header(path)
    assert caught.value.fault is Fault.UNREADABLE_OBJECT
    assert "ZZCANARY" not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


def test_a_disk_that_does_not_give_the_file_is_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(Transient) as caught:
        read_header(tmp_path / "absent.dcm")
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_identity_is_in_the_head_whatever_follows(tmp_path: Path, syntax: Any) -> None:
    dataset = hand_dataset()
    path = write_file(tmp_path / "object.dcm", dataset, transfer_syntax_uid=syntax)
    content = path.read_bytes()
    uid = str(dataset.SOPInstanceUID).encode()
    end = content.rindex(uid) + len(uid) + len(uid) % 2
    path.write_bytes(content[:end] + os.urandom(100_000))
    assert read_identity(path) == Identity(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(syntax),
    )


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_a_data_set_without_its_uids_is_unreadable(tmp_path: Path, keyword: str) -> None:
    path = write_file(tmp_path / "object.dcm", hand_dataset())
    tag = {"SOPClassUID": b"\x08\x00\x16\x00UI", "SOPInstanceUID": b"\x08\x00\x18\x00UI"}[keyword]
    content = path.read_bytes()
    path.write_bytes(content.replace(tag, b"\x08\x00\x17\x00UI"))
    with pytest.raises(Permanent):
        read_identity(path)


def test_reading_in_many_threads_leaves_the_warning_filters_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "object.dcm", hand_dataset())
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [read_identity(path) for _ in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@settings(max_examples=200, deadline=None)
@given(position=st.integers(132, 1500), noise=st.binary(min_size=1, max_size=30))
def test_damaged_bytes_give_a_header_or_a_permanent_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, noise: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    content = write_file(path, hand_dataset(side_pixels=16)).read_bytes()
    path.write_bytes(content[:position] + noise + content[position + len(noise) :])
    for read in (read_header, read_identity):
        with contextlib.suppress(Permanent):
            assert read(path).sop_instance_uid is not None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_whose_an_object_is(tmp_path: Path, syntax: UID) -> None:
    dataset = hand_dataset(
        SpecificCharacterSet="ISO_IR 100", PatientName="Conceição^Ana", PatientID=" 7 "
    )
    path = write_file(tmp_path / "object.dcm", dataset, transfer_syntax_uid=syntax)
    whose = Subject(
        study_instance_uid=str(dataset.StudyInstanceUID),
        patient_id="7",
        patient_name="Conceição^Ana",
    )
    assert read_subject(path) == whose
    assert subject_in(path.read_bytes()[:2000]) == whose, "the head is enough"


def test_whose_an_object_is_may_be_unknown(tmp_path: Path) -> None:
    dataset = hand_dataset()
    del dataset.PatientID, dataset.PatientName, dataset.StudyInstanceUID
    assert read_subject(write_file(tmp_path / "object.dcm", dataset)) == Subject()
    assert read_subject(tmp_path / "absent.dcm") == Subject()


@pytest.mark.parametrize(
    "name", ["empty", "preamble", "pdf", "random", "meta_only_prefix", "nested"]
)
def test_of_what_is_no_dicom_file_nobody_is_the_patient(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert read_subject(hostile(tmp_path, name)).patient_id == ""
    assert "ZZCANARY" not in caplog.text


def test_a_head_of_elements_without_end_costs_little_time(tmp_path: Path) -> None:
    path = write_file(
        tmp_path / "object.dcm", hand_dataset(), transfer_syntax_uid=ImplicitVRLittleEndian
    )
    whole = path.read_bytes()
    head = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    elements = [b"\x09\0" + n.to_bytes(2, "little") + b"\0\0\0\0" for n in range(60_000)]
    begun = time.thread_time()
    assert subject_in(head + b"".join(elements)) == Subject()
    assert time.thread_time() - begun < 2.0


@cache
def encoded_hand() -> bytes:
    dataset, encoded = hand_dataset(), io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(encoded, enforce_file_format=True)
    return encoded.getvalue()


@given(st.binary(max_size=400), st.integers(0, 600))
@settings(max_examples=200)
def test_no_bytes_make_it_fail_to_say_whose_an_object_is(noise: bytes, at: int) -> None:
    whole = encoded_hand()
    subject_in(whole[:at] + noise + whole[at + len(noise) :])
