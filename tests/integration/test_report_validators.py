"""Independent validators on every kind of object, as every SOP class it may be sent as: dciodvfy
(dicom3tools) and dsrdump (DCMTK)."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.adapters.reporter import SrReporter
from dicom_node.adapters.scu import report_sender
from dicom_node.domain.assessment import (
    Assessment,
    HandBox,
    ModelIdentity,
    Note,
    Prediction,
    PriorResult,
    Saliency,
    assess,
)
from dicom_node.domain.delivery import SOP_CLASSES, PreviousReport, ReportKind, ReportObject
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE, DX_FOR_PRESENTATION, Reason
from dicom_node.domain.exam import Laterality, Sex
from dicom_node.ports import ReportRequest

ALLOW_LIST = Path(__file__).parents[1] / "validator_allow_list.toml"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One complaint of one validator."""

    validator: str
    text: str


def allowed() -> set[Message]:
    entries = tomllib.loads(ALLOW_LIST.read_text(encoding="utf-8"))["allowed"]
    assert all(entry["reason"].strip() for entry in entries)
    return {Message(validator=entry["validator"], text=entry["message"]) for entry in entries}


def differences(raised: set[Message], allow_list: set[Message]) -> list[str]:
    """Messages that are not allowed, and allowed ones that nothing raises."""
    unlisted = [f"not allowed: {m.validator}: {m.text}" for m in raised - allow_list]
    unused = [f"unused line: {m.validator}: {m.text}" for m in allow_list - raised]
    return sorted(unlisted + unused)


def source(**attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = CR_IMAGE_STORAGE
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.10.1.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.10.1.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1.3"
    dataset.Rows, dataset.Columns = 2000, 1600
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def complete_source() -> Dataset:
    return source(
        SOPClassUID=DX_FOR_PRESENTATION,
        PatientName="CONCEIÇÃO^JOSÉ",
        PatientID="7",
        PatientBirthDate="20100101",
        PatientSex="F",
        PatientAge="012Y",
        AccessionNumber="A1",
        StudyID="S1",
        StudyDate="20220701",
        StudyTime="101112",
        StudyDescription="Mão e punho",
        ReferringPhysicianName="ANDRÉ^SÃO",
        TimezoneOffsetFromUTC="-0300",
        SyntheticData="YES",
        PatientOrientation=["L", "F"],
        ImagerPixelSpacing=[0.1, 0.1],
    )


def finding(
    age_months: float | None = 150.0, laterality: Laterality = Laterality.LEFT
) -> Assessment:
    return assess(
        Prediction(
            bone_age_months=126.347,
            sd_months=6.25,
            hand_box=HandBox(left=100, top=120.5, right=1500, bottom=1900),
            findings=(),
            saliency=Saliency(
                box=HandBox(left=16, top=13.5, right=1584, bottom=2000), levels=((9, 200),)
            ),
            model=ModelIdentity(name="boneage-test", version="1.2.0", sha256="cd" * 32),
        ),
        sex=Sex.FEMALE,
        laterality=laterality,
        view_position="PA",
        chronological_age_months=age_months,
        reference=load_reference_table("greulich-pyle-v-vi"),
        notes=tuple(Note),
    )


def cases() -> Iterator[tuple[Dataset, Assessment | Reason, str]]:
    """Every determination, side, language and reason, on complete and on sparse sources."""
    for age_months in (100.0, 126.0, 170.0, 200.0, None):
        yield complete_source(), finding(age_months), "pt-BR"
    for laterality in Laterality:
        yield complete_source(), finding(laterality=laterality), "en"
    for reason in Reason:
        yield complete_source(), reason, "pt-BR"
    newer = ModelIdentity(name="boneage-test", version="1.3.0", sha256="ef" * 32)
    for model in (finding().prediction.model, newer):
        earlier = PriorResult(
            study_date=date(2021, 7, 1),
            chronological_age_months=138.0,
            bone_age_months=113.0,
            model=model,
        )
        compared = replace(finding(), study_date=date(2022, 7, 1), priors=(earlier,))
        yield complete_source(), compared, "pt-BR"
    yield source(), finding(), "pt-BR"
    yield source(PatientSex="F", PatientName="MÃE"), Reason.SEX_MISSING, "en"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of all cases."""
    folder = tmp_path_factory.mktemp("reports")
    reporter = SrReporter(device_name="node-1")
    files = []
    for number, (dataset, what, language) in enumerate(cases()):
        received = folder / f"{number}.received"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(received, enforce_file_format=True)
        request = ReportRequest(
            path=received,
            content_sha256=f"{number:064x}",
            finding=what,
            language=language,
            reported_at=datetime(2024, 3, 5, 17, 22, 33, tzinfo=UTC),
            kinds=frozenset(ReportKind),
            previous=PREVIOUS if number % 2 else None,
        )
        for report in reporter.build(request):
            for sop_class, encoded in as_every_class(report):
                files.append(folder / f"{number}-{report.kind}-{sop_class}.dcm")
                files[-1].write_bytes(encoded)
    return files


PREVIOUS = PreviousReport(
    revision=3,
    study_instance_uid=str(source().StudyInstanceUID),
    objects=tuple(
        ReportObject(
            kind=kind,
            sop_class_uid=SOP_CLASSES[kind][0],
            sop_instance_uid=f"2.25.{number}",
            series_instance_uid=f"2.25.1{number}",
            encoded=b"",
        )
        for number, kind in enumerate(ReportKind, 1)
    ),
)


def as_every_class(report: ReportObject) -> Iterator[tuple[str, bytes]]:
    """The object as it is made, and as the other SOP classes that a destination may get."""
    yield report.sop_class_uid, report.encoded
    for sop_class in SOP_CLASSES[report.kind][1:]:
        accepted = frozenset({(sop_class, str(ExplicitVRLittleEndian))})
        dataset = report_sender._as_accepted(report, accepted)
        assert dataset is not None
        with BytesIO() as file:
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(file, enforce_file_format=True)
            yield sop_class, file.getvalue()


IODS = (
    "Comprehensive3DSR",
    "ComprehensiveSR",
    "EnhancedSR",
    "BasicTextSR",
    "SCImage",
    "EncapsulatedPDF",
)


def dciodvfy(path: Path) -> set[Message]:
    """Its errors and warnings; the one other line names the IOD."""
    command = [str(Path(sys.executable).parent / "dciodvfy"), str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False)
    name, *others = [s for s in (lines.stdout + lines.stderr).splitlines() if " - " not in s]
    assert name in IODS
    assert others == []
    complaints = [line for line in lines.stderr.splitlines() if " - " in line]
    assert (lines.returncode != 0) == any(line.startswith("Error") for line in complaints)
    return {Message(validator="dciodvfy", text=line.strip()) for line in complaints}


def dsrdump(path: Path) -> tuple[str, set[Message]]:
    """What DCMTK reads of the report, and its complaints."""
    command = shutil.which("dsrdump")
    assert command, "dsrdump is missing: install DCMTK"
    # Whole texts, codes included.
    result = subprocess.run([command, "+Pl", "+Pc", str(path)], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    complaints = {line.strip() for line in result.stderr.decode().splitlines() if line.strip()}
    return result.stdout.decode("utf-8"), {
        Message(validator="dsrdump", text=line) for line in complaints
    }


def test_validators_say_what_the_allow_list_allows_and_nothing_else(reports: list[Path]) -> None:
    raised: set[Message] = set()
    for path in reports:
        raised |= dciodvfy(path)
        if "88." in path.name:  # SR storage classes
            raised |= dsrdump(path)[1]
    wrong = differences(raised, allowed())
    assert not wrong, "\n".join(wrong)


def test_a_line_of_the_allow_list_that_nothing_raises_fails() -> None:
    extra = Message(validator="dciodvfy", text="Warning - nobody says this")
    assert differences(allowed(), allowed() | {extra}) == [
        "unused line: dciodvfy: Warning - nobody says this"
    ]


def test_a_message_that_is_not_allowed_fails() -> None:
    (first, *others) = sorted(allowed(), key=lambda message: message.text)
    assert differences(allowed(), set(others)) == [f"not allowed: {first.validator}: {first.text}"]


def test_dciodvfy_notices_a_broken_report(reports: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    whole = reports[0].read_bytes()
    broken.write_bytes(whole.replace(b"UNVERIFIED", b"UNVERIFYED"))
    assert broken.read_bytes() != whole
    assert any(m.text.startswith("Error") for m in dciodvfy(broken))


def test_dcmtk_reads_figures_and_accents(reports: list[Path]) -> None:
    by_kind = {path.name.split("-")[1]: path for path in reports if path.name.startswith("0-")}
    measurements, _ = dsrdump(by_kind["measurements"])
    assert '(85151-9,LN,"XR Bone age")="126.35" (mo,UCUM,"month")' in measurements
    narrative, _ = dsrdump(by_kind["narrative"])
    assert "CONCEIÇÃO^JOSÉ" in narrative
    assert "Idade óssea estimada: 10 anos e 6 meses (126,3 meses)." in narrative


def test_dcmtk_makes_a_page_of_every_value(reports: list[Path]) -> None:
    command = shutil.which("dsr2html", path="/usr/bin")
    assert command, "dsr2html is missing: install DCMTK"
    by_kind = {path.name.split("-")[1]: path for path in reports if path.name.startswith("0-")}
    pages = {}
    for kind in ("measurements", "narrative"):
        done = subprocess.run([command, str(by_kind[kind])], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        pages[kind] = html.unescape(done.stdout.decode("utf-8"))
    for number in ("126.35 mo", "6.25 mo", "100.0 mo", "26.35 mo", "8.97 mo", "2.94 1"):
        assert number in pages["measurements"], number
    assert "advanced" in pages["measurements"]
    assert "Idade óssea estimada: 10 anos e 6 meses (126,3 meses)." in pages["narrative"]
    assert "Não verificado por médico" in pages["narrative"]


def test_every_kind_of_determination_was_validated() -> None:
    found = {what.determination for _, what, _ in cases() if isinstance(what, Assessment)}
    assert len(found) == 5
