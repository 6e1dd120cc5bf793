"""The doctor finds what is wrong and says what to do; one broken check does not hide the others."""

from __future__ import annotations

import socket
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node import doctor
from dicom_node.adapters.pseudonyms import PatientPseudonyms
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.doctor import CheckStatus, Finding
from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.errors import Fault, Permanent

Usage = namedtuple("Usage", "total used free")
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def ticking(*, start: float, step: float) -> Callable[[], float]:
    """A clock that moves by ``step`` at each look."""
    times = [start]

    def look() -> float:
        times[0] += step
        return times[0]

    return look


def found(finding: Finding, status: CheckStatus) -> str:
    """Its text, once status and action agree."""
    assert finding.status is status
    assert bool(finding.action) is (status is not CheckStatus.OK)
    return finding.found


def test_every_check_runs_and_one_that_breaks_has_failed_without_quoting() -> None:
    def broken() -> Finding:
        raise ValueError("ZZCANARY")

    def refused() -> Finding:
        raise Permanent(Fault.CORRUPT_SPOOL, "object 12ab is missing")

    fine = Finding(status=CheckStatus.OK, found="well")
    results = doctor.run_checks({"a": broken, "b": refused, "c": lambda: fine})
    assert [(result.name, result.status.value) for result in results] == [
        ("a", "failed"),
        ("b", "failed"),
        ("c", "ok"),
    ]
    assert "ValueError" in results[0].found
    assert "ZZCANARY" not in str(results)
    assert results[1].found == "object 12ab is missing"
    assert "corrupt_spool" in results[1].action


def test_a_configuration_that_loads_is_well_and_another_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[node]\nport = 11113\n", encoding="utf-8")
    assert str(path) in found(doctor.check_config(path), CheckStatus.OK)
    path.write_text("[node]\nprot = 11113\n", encoding="utf-8")
    assert "node.prot" in found(doctor.check_config(path), CheckStatus.FAILED)
    assert "no file" in found(doctor.check_config(None), CheckStatus.OK)


def test_a_writable_data_folder_is_well_and_stays_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SLOW_FSYNC_SECONDS", 60)
    assert " ms" in found(doctor.check_data_folder(tmp_path), CheckStatus.OK)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SLOW_FSYNC_SECONDS", 0)
    found(doctor.check_data_folder(tmp_path), CheckStatus.WARNING)


def test_a_data_folder_that_cannot_be_written_has_failed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (tmp_path / "missing", file):
        assert str(folder) in found(doctor.check_data_folder(folder), CheckStatus.FAILED)


@pytest.mark.parametrize(
    ("used", "status"),
    [(79, CheckStatus.OK), (80, CheckStatus.WARNING), (90, CheckStatus.FAILED)],
)
def test_disk_space_is_compared_with_the_high_water_mark(
    used: int, status: CheckStatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(110, used, 100 - used))
    assert f"{used} % used" in found(doctor.check_disk(tmp_path, 90), status)


def test_the_real_disk_can_be_asked(tmp_path: Path) -> None:
    assert "% used" in doctor.check_disk(tmp_path, 100).found


def test_the_real_clock_can_be_asked() -> None:
    assert "UTC" in doctor.check_clock(watch_seconds=0.01).found


@pytest.mark.parametrize(
    ("wall", "status"),
    [
        (ticking(start=NOW, step=0.1), CheckStatus.OK),
        (ticking(start=NOW, step=3600.0), CheckStatus.WARNING),
        (ticking(start=NOW, step=-0.5), CheckStatus.WARNING),
        (ticking(start=0.0, step=0.1), CheckStatus.FAILED),
    ],
    ids=["steady", "jumps ahead", "runs backwards", "1970"],
)
def test_a_clock_that_jumps_or_stands_in_another_century_is_found(
    wall: Callable[[], float], status: CheckStatus
) -> None:
    monotonic = iter([0.0, 0.1, 0.1])
    finding = doctor.check_clock(wall=wall, monotonic=lambda: next(monotonic), watch_seconds=0.1)
    found(finding, status)


def test_a_ledger_is_well_when_it_is_migrated_or_new() -> None:
    assert "0002" in found(doctor.check_ledger(lambda: "0002", "0002"), CheckStatus.OK)
    found(doctor.check_ledger(lambda: None, "0002"), CheckStatus.OK)
    assert "0001" in found(doctor.check_ledger(lambda: "0001", "0002"), CheckStatus.FAILED)


def test_a_verified_model_is_named() -> None:
    model = ModelIdentity(name="boneage", version="1.2", sha256="ab" * 32)
    text = found(doctor.check_model(lambda: model), CheckStatus.OK)
    assert text.startswith("boneage 1.2, SHA-256 abababababab")


def test_a_reference_table_that_is_not_there_has_failed_with_the_known_ones() -> None:
    known = doctor.check_reference_table(lambda: load_reference_table("greulich-pyle-v-vi"))
    assert "Greulich" in found(known, CheckStatus.OK)
    [result] = doctor.run_checks(
        {"table": lambda: doctor.check_reference_table(lambda: load_reference_table("typo"))}
    )
    assert result.status is CheckStatus.FAILED
    assert "greulich-pyle-v-vi" in result.found


def test_a_damaged_key_is_a_warning_for_the_node_works_without(tmp_path: Path) -> None:
    key = tmp_path / "patients.key"
    found(doctor.check_patient_key(PatientPseudonyms(key).verify), CheckStatus.OK)
    key.write_bytes(b"short")
    text = found(doctor.check_patient_key(PatientPseudonyms(key).verify), CheckStatus.WARNING)
    assert "damaged" in text


def test_a_destination_that_does_not_answer_has_failed() -> None:
    found(doctor.check_destination(lambda: None), CheckStatus.OK)
    text = found(doctor.check_destination(lambda: "connection refused"), CheckStatus.FAILED)
    assert text == "connection refused"


def test_a_free_port_is_well() -> None:
    assert "free" in found(doctor.check_port("127.0.0.1", 0, ours=lambda: False), CheckStatus.OK)


def test_a_taken_port_has_failed_unless_it_is_this_node(taken_port: int) -> None:
    text = found(doctor.check_port("127.0.0.1", taken_port, ours=lambda: False), CheckStatus.FAILED)
    assert str(taken_port) in text
    found(doctor.check_port("127.0.0.1", taken_port, ours=lambda: True), CheckStatus.OK)


def test_an_address_that_is_not_ours_has_failed() -> None:
    found(doctor.check_port("192.0.2.1", 11112, ours=lambda: True), CheckStatus.FAILED)


def test_every_transfer_syntax_that_the_node_offers_can_be_decoded() -> None:
    from dicom_node.scp.contexts import IMAGE_TRANSFER_SYNTAXES

    found(doctor.check_decoders(IMAGE_TRANSFER_SYNTAXES), CheckStatus.OK)


def test_a_transfer_syntax_without_decoder_is_named() -> None:
    mpeg2 = "1.2.840.10008.1.2.4.100"
    assert mpeg2 in found(doctor.check_decoders([mpeg2]), CheckStatus.FAILED)


@pytest.mark.parametrize(
    ("wanted", "device"), [("auto", "cpu"), ("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")]
)
def test_the_device_that_is_wanted_is_fine(wanted: str, device: str) -> None:
    assert device in found(doctor.check_device(wanted, lambda: device), CheckStatus.OK)


def test_a_gpu_that_is_wanted_and_does_not_answer_is_a_warning() -> None:
    finding = doctor.check_device("cuda", lambda: "cpu")
    assert "no GPU answers" in found(finding, CheckStatus.WARNING)
