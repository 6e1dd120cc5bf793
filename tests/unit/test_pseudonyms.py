"""Pseudonyms: one a patient, unreadable, and the same for as long as the key is there."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from dicom_node.adapters.pseudonyms import PatientPseudonyms
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Header


def header(patient_id: str, issuer: str = "") -> Header:
    return Header(
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        patient_id=patient_id,
        issuer_of_patient_id=issuer,
    )


def test_a_patient_has_one_pseudonym_at_each_institution(tmp_path: Path) -> None:
    pseudonyms = PatientPseudonyms(tmp_path / "keys" / "patients.key")
    first = pseudonyms("a", header("MARIA-7"))
    assert first is not None
    assert len(first) == 64
    assert "MARIA" not in first
    assert pseudonyms("a", header("MARIA-7")) == first
    others = {
        pseudonyms("b", header("MARIA-7")),
        pseudonyms("a", header("MARIA-8")),
        pseudonyms("a", header("MARIA-7", issuer="city")),
        pseudonyms("", header("aMARIA-7")),
        pseudonyms("a", replace(header("MARIA-7"), birth_date=date(2015, 1, 1))),
        pseudonyms("a", replace(header("MARIA-7"), sex="F")),
    }
    assert len(others | {first}) == 7


def test_nobody_has_no_pseudonym(tmp_path: Path) -> None:
    assert PatientPseudonyms(tmp_path / "patients.key")("a", header("")) is None


def test_the_key_stays_is_private_and_decides(tmp_path: Path) -> None:
    path = tmp_path / "patients.key"
    first = PatientPseudonyms(path)("a", header("7"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["patients.key"]
    assert PatientPseudonyms(path)("a", header("7")) == first
    path.unlink()
    assert PatientPseudonyms(path)("a", header("7")) != first


def test_processes_that_start_together_make_one_key(tmp_path: Path) -> None:
    path = tmp_path / "patients.key"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: PatientPseudonyms(path)("a", header("7")), range(8)))
    assert len(made) == 1


def test_a_damaged_key_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "patients.key"
    path.write_bytes(b"short")
    with pytest.raises(Permanent, match="damaged") as caught:
        PatientPseudonyms(path)("a", header("7"))
    assert caught.value.fault is Fault.STORAGE_UNAVAILABLE


def test_looking_at_the_key_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "patients.key"
    PatientPseudonyms(path).verify()
    assert not path.exists()
    path.write_bytes(b"short")
    with pytest.raises(Permanent, match="damaged"):
        PatientPseudonyms(path).verify()


def test_a_key_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    with pytest.raises(Transient, match="cannot be read or made"):
        PatientPseudonyms(tmp_path / "keys" / "patients.key")("a", header("7"))


def test_a_printed_header_names_no_patient() -> None:
    assert "MARIA" not in repr(header("MARIA-7", issuer="MARIA-CITY"))
