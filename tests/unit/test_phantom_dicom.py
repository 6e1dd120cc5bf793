"""Phantoms as DICOM objects: valid, repeatable, and marked as synthetic."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.assessment import age_in_months
from dicom_node.domain.eligibility import Eligible, screen
from dicom_node.domain.exam import Laterality
from dicom_node.domain.exam import Sex as RecordedSex
from dicom_node.headers import read_header
from inference.phantom.dicom import Modality, to_dataset, write_radiograph
from inference.phantom.exams import PhantomExam, phantom_exams
from inference.phantom.maturation import MAX_BONE_AGE_MONTHS, MIN_BONE_AGE_MONTHS
from tests.builders.exams import drawn_radiograph, radiograph_dataset, save_dicom

DCIODVFY = shutil.which("dciodvfy", path=Path(sys.executable).parent) or shutil.which("dciodvfy")
EXAM = PhantomExam(
    sex="F",
    bone_age_months=118.0,
    chronological_age_months=120,
    birth_date=date(2015, 3, 2),
    study_date=date(2025, 3, 2),
    seed=5,
)


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_the_object_is_valid(modality: Modality, tmp_path: Path) -> None:
    path = save_dicom(radiograph_dataset(modality=modality), tmp_path / "image.dcm")
    answer = subprocess.run(
        [str(DCIODVFY), "-new", str(path)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in (answer.stdout + answer.stderr).splitlines() if " - " in line]
    assert complaints == []
    assert answer.returncode == 0
    assert {"DX": "DXImageForPresentation", "CR": "CRImage"}[modality] in answer.stderr


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
def test_the_validator_would_complain(tmp_path: Path) -> None:
    path = save_dicom(radiograph_dataset(PresentationLUTShape=None), tmp_path / "image.dcm")
    answer = subprocess.run(
        [str(DCIODVFY), "-new", str(path)], capture_output=True, text=True, check=False
    )
    assert "Error - " in answer.stderr


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_the_object_says_that_it_is_synthetic(modality: Modality) -> None:
    ds = radiograph_dataset(modality=modality)
    assert ds.SyntheticData == "YES"
    assert "SYNTHETIC" in ds.ImageComments
    assert ds.PatientName == "PHANTOM^SYNTHETIC"
    assert ds.PatientID.startswith("PHANTOM-")
    assert "Synthetic" in ds.InstitutionName
    assert "SYNTHETIC" in ds.SeriesDescription


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_the_node_finds_the_exam_eligible(modality: Modality, tmp_path: Path) -> None:
    write_radiograph(tmp_path / "image.dcm", EXAM, modality=modality, rows=400, columns=300)
    header = read_header(tmp_path / "image.dcm")
    found = screen(header)
    assert isinstance(found, Eligible)
    assert found.sex is RecordedSex.FEMALE
    assert found.chronological_age_months == 120
    assert found.notes == ()
    assert header.laterality is Laterality.LEFT
    assert header.view_position == "PA"


def test_a_written_file_holds_the_drawn_pixels_and_their_size(tmp_path: Path) -> None:
    write_radiograph(tmp_path / "image.dcm", EXAM, rows=400, columns=300)
    read = pydicom.dcmread(tmp_path / "image.dcm")
    drawn = drawn_radiograph(bone_age_months=118.0, sex="F", seed=5, rows=400, columns=300)
    assert np.array_equal(read.pixel_array, drawn.pixels)
    assert (read.BitsStored, read.HighBit, read.PhotometricInterpretation) == (
        12,
        11,
        "MONOCHROME2",
    )
    assert list(read.PixelSpacing) == pytest.approx([drawn.pixel_spacing_mm] * 2, abs=1e-6)
    assert read.ImagerPixelSpacing == read.PixelSpacing


def test_equal_arguments_give_an_equal_file(tmp_path: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        write_radiograph(tmp_path / name, EXAM, rows=400, columns=300)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


@pytest.mark.parametrize(
    "make_other",
    [
        partial(radiograph_dataset, seed=2),
        partial(radiograph_dataset, modality="CR"),
        partial(radiograph_dataset, bone_age_months=96.0),
        partial(radiograph_dataset, study_date=date(2025, 5, 21)),
    ],
    ids=["seed", "modality", "bone age", "study date"],
)
def test_another_image_has_other_uids(make_other: Callable[[], Dataset]) -> None:
    one, other = radiograph_dataset(), make_other()
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert one[keyword].value != other[keyword].value
        assert UID(one[keyword].value).is_valid


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), dtype=np.uint16),
        np.zeros((4, 4), dtype=np.float32),
        np.full((4, 4), 4096, dtype=np.uint16),
    ],
)
def test_other_pixels_are_refused(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
    with pytest.raises(ValueError, match="12 bits"):
        to_dataset(
            pixels,
            sex="M",
            birth_date=EXAM.birth_date,
            study_date=EXAM.study_date,
            pixel_spacing_mm=0.1,
            seed=0,
        )


def test_demonstration_exams_are_repeatable_and_varied() -> None:
    exams = phantom_exams(12, seed=4)
    assert exams == phantom_exams(12, seed=4)
    assert exams != phantom_exams(12, seed=5)
    assert [exam.sex for exam in exams] == ["M", "F"] * 6
    assert len({exam.seed for exam in exams}) == 12
    ages = [exam.chronological_age_months for exam in exams]
    assert min(ages) < 48
    assert max(ages) > 150


@pytest.mark.parametrize("seed", range(5))
def test_demonstration_exams_can_be_drawn_and_tell_their_age(seed: int) -> None:
    for exam in phantom_exams(40, seed=seed):
        assert MIN_BONE_AGE_MONTHS <= exam.bone_age_months <= MAX_BONE_AGE_MONTHS
        assert age_in_months(exam.birth_date, exam.study_date) == exam.chronological_age_months


def test_every_fourth_demonstration_exam_is_outside_two_standard_deviations() -> None:
    table = load_reference_table("greulich-pyle-v-vi")
    for index, exam in enumerate(phantom_exams(40, seed=0)):
        sd_months = table.sd_at(RecordedSex(exam.sex), exam.chronological_age_months)
        assert sd_months is not None
        z = (exam.bone_age_months - exam.chronological_age_months) / sd_months
        assert (abs(z) > 2) == (index % 4 == 2)


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_the_builder_writes_every_transfer_syntax(transfer_syntax: UID, tmp_path: Path) -> None:
    path = save_dicom(radiograph_dataset(), tmp_path / "image.dcm", transfer_syntax)
    read = pydicom.dcmread(path)
    assert read.file_meta.TransferSyntaxUID == transfer_syntax
    assert np.array_equal(read.pixel_array, drawn_radiograph().pixels)


def test_the_builder_overrides_and_deletes() -> None:
    ds = radiograph_dataset(PatientID="X1", PatientBirthDate=None, SOPInstanceUID="1.2.3")
    assert ds.PatientID == "X1"
    assert "PatientBirthDate" not in ds
    assert ds.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
