"""A running node between the sending and the storing side of a real PACS, Orthanc."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, generate_uid

from dicom_node.adapters.ledger.queries import ExamDetails
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState, Stage
from sr_templates.concepts import BONE_AGE, UNCERTAINTY
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.radiographs import radiograph, radiograph_files
from tests.integration.peers import canned_peer, free_port, wait_until
from tests.peers.node import Node, running_node, write_config
from tests.peers.orthanc import PROGRAM, Orthanc, needs_orthanc, running_orthanc

pytestmark = needs_orthanc

MEASUREMENTS, NARRATIVE = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.22"
CANARY = "ZZCANARY"
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": f"{CANARY}^João Conceição Muñoz",
    "PatientID": f"{CANARY}1",
}
ONE_WORKER = '[inference]\nworkers = 1\ndevice = "cpu"\n'
FIRST_RETRY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """A PACS and a node that know each other."""

    node: Node
    pacs: Orthanc

    def send_study(self, study: str) -> dict[str, Any]:
        """Have the PACS send a whole study; the result of its job."""
        return dict(self.pacs.post("/modalities/node/store", study.encode()))

    def exams(self, sop_instance_uid: str) -> list[ExamDetails]:
        """The node's exams of an instance."""
        ledger = self.node.ledger()
        found = [ledger.exam_details(i) for i in ledger.exam_ids(sop_instance_uid)]
        ledger.close()
        return found

    def outcome(self, sop_instance_uid: str) -> tuple[Outcome, str | None]:
        """What became of the only exam of an instance."""
        [details] = self.exams(sop_instance_uid)
        return details.exam.outcome, details.exam.reason


@dataclass(frozen=True, kw_only=True)
class Study:
    """One child's study in the PACS, after the node has answered."""

    orthanc_id: str
    hand: Dataset
    capture: Dataset
    tomography: Dataset
    sent: dict[str, Any]
    """What the PACS said of its job."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    with ExitStack() as running:
        pacs = running.enter_context(running_orthanc(folder / "pacs", node_port=port))
        write_config(
            folder / "node", [("pacs", Orthanc.ae_title, pacs.dicom_port)], extra=ONE_WORKER
        )
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("DICOM_NODE_NODE__PORT", str(port))
            node = running.enter_context(running_node(folder / "node"))
        yield Site(node=node, pacs=pacs)


@pytest.fixture(scope="module")
def study(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A CR hand, its secondary capture and a CT in one study, sent to the node by the PACS."""
    folder = tmp_path_factory.mktemp("study")
    hand = radiograph(1, **PATIENT)
    same = PATIENT | {"StudyInstanceUID": hand.StudyInstanceUID}
    capture = hand_dataset(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", **same)
    capture.ConversionType = "WSD"
    tomography = hand_dataset(SOPClassUID=CTImageStorage, Modality="CT", **same)
    hand.save_as(folder / "hand.dcm", enforce_file_format=True)
    write_file(folder / "capture.dcm", capture)
    write_file(folder / "tomography.dcm", tomography)
    [study_id] = {
        site.pacs.post("/instances", path.read_bytes())["ParentStudy"] for path in folder.iterdir()
    }
    sent = site.send_study(study_id)
    wait_until(lambda: len(site.pacs.reports()) == 2, seconds=60)
    site.node.wait_until_idle(60)
    return Study(orthanc_id=study_id, hand=hand, capture=capture, tomography=tomography, sent=sent)


def stored_reports(pacs: Orthanc) -> dict[str, Dataset]:
    """SOP Class UID to the report object as the PACS has it."""
    contents = [
        pacs.get_bytes(f"/instances/{instance}/file")
        for series in pacs.get("/series?expand")
        if series["MainDicomTags"]["Modality"] == "SR"
        for instance in series["Instances"]
    ]
    reports = [dcmread(BytesIO(content)) for content in contents]
    return {str(report.SOPClassUID): report for report in reports}


def test_the_pacs_can_send_a_whole_study_without_a_failure(study: Study) -> None:
    assert study.sent["InstancesCount"] == 3
    assert study.sent["FailedInstancesCount"] == 0


def test_the_hand_is_assessed_and_the_rest_is_ignored_with_its_reason(
    site: Site, study: Study
) -> None:
    assert site.outcome(study.hand.SOPInstanceUID) == (Outcome.ASSESSED, None)
    assert site.outcome(study.capture.SOPInstanceUID) == (Outcome.IGNORED, "secondary_capture")
    assert site.outcome(study.tomography.SOPInstanceUID) == (Outcome.IGNORED, "other_sop_class")


def test_both_reports_arrive_in_two_new_series_of_the_same_study(site: Site, study: Study) -> None:
    reports = stored_reports(site.pacs)
    assert set(reports) == {MEASUREMENTS, NARRATIVE}
    assert {report.StudyInstanceUID for report in reports.values()} == {study.hand.StudyInstanceUID}
    series = [report.SeriesInstanceUID for report in reports.values()]
    assert len({*series, study.hand.SeriesInstanceUID}) == 3
    assert len(site.pacs.get("/studies")) == len(site.pacs.get("/patients")) == 1


def test_the_patients_name_with_accents_is_the_same_in_the_reports(
    site: Site, study: Study
) -> None:
    for report in stored_reports(site.pacs).values():
        assert report.PatientName == study.hand.PatientName == PATIENT["PatientName"]
        assert report.PatientID == PATIENT["PatientID"]
    named = [tags["PatientName"] for tags in site.pacs.reports()]  # as the PACS decodes it
    assert named == [PATIENT["PatientName"]] * 2


def test_both_reports_refer_to_the_radiograph_and_the_measurements_to_its_pixels(
    site: Site, study: Study
) -> None:
    reports = stored_reports(site.pacs)
    for report in reports.values():
        [evidence] = report.CurrentRequestedProcedureEvidenceSequence
        [series] = evidence.ReferencedSeriesSequence
        [image] = series.ReferencedSOPSequence
        assert evidence.StudyInstanceUID == study.hand.StudyInstanceUID
        assert series.SeriesInstanceUID == study.hand.SeriesInstanceUID
        assert image.ReferencedSOPInstanceUID == study.hand.SOPInstanceUID
        assert image.ReferencedSOPClassUID == study.hand.SOPClassUID
    [box] = [item for item in items(reports[MEASUREMENTS]) if item.ValueType == "SCOORD"]
    [source] = [item for item in items(box) if item.ValueType == "IMAGE"]
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == study.hand.SOPInstanceUID


def items(container: Dataset) -> Iterator[Dataset]:
    """Every content item below a container (PS3.3 C.17.3)."""
    for item in container.get("ContentSequence", []):
        yield item
        yield from items(item)


def test_the_bone_age_in_the_pacs_is_the_one_in_the_ledger(site: Site, study: Study) -> None:
    [details] = site.exams(study.hand.SOPInstanceUID)
    assert details.prediction is not None
    stated = {
        item.ConceptNameCodeSequence[0].CodeValue: item.MeasuredValueSequence[0].NumericValue
        for item in items(stored_reports(site.pacs)[MEASUREMENTS])
        if item.ValueType == "NUM"
    }
    assert stated[BONE_AGE.value] == round(details.prediction.bone_age_months, 2)
    assert stated[UNCERTAINTY.value] == round(details.prediction.sd_months, 2)


def test_the_nodes_own_reports_may_come_back_and_a_repeated_study_makes_nothing_new(
    site: Site, study: Study
) -> None:
    before = {uid: report.SOPInstanceUID for uid, report in stored_reports(site.pacs).items()}
    for _ in range(2):
        sent = site.send_study(study.orthanc_id)
        assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (5, 0)
        site.node.wait_until_idle(60)
    assert site.pacs.count() == 5
    for uid in before.values():
        assert site.outcome(uid) == (Outcome.IGNORED, "own_result")
    [hand] = site.exams(study.hand.SOPInstanceUID)
    assert [report.sop_instance_uid for report in hand.reports] == list(before.values())
    ledger = site.node.ledger()
    assert len(ledger.exams(limit=100)) == 5
    assert ledger.jobs(limit=100, state=JobState.PARKED) == []
    ledger.close()


def test_neither_log_nor_metrics_nor_status_name_a_patient_or_an_object(
    site: Site, study: Study, tmp_path: Path
) -> None:
    files = [*broken_files(tmp_path)]
    sent = list(send_files(files, site.node.peer, calling_ae_title=CANARY))
    assert {item.status for item in sent} == {0}
    site.node.wait_until_idle(60)

    said = {
        "node.log": (site.node.folder / "node.log").read_text(),
        "/metrics": site.node.get("/metrics"),
        "/readyz": site.node.get("/readyz"),
        "status": json.dumps(site.node.command("status", "--json")),
        "job list": json.dumps(site.node.command("job", "list", "--json")),
    }
    ledger = site.node.ledger()
    received = [ledger.exam_details(item.exam_id).exam for item in ledger.exams(limit=100)]
    ledger.close()
    assert len(received) == 5 + len(files)
    secrets = {CANARY, "Conceição", str(study.hand.StudyInstanceUID)}
    secrets |= {exam.instance.sop_instance_uid for exam in received}
    assert said["node.log"].count('"instance_stored"') >= len(received)
    assert "dicom_node_cstore_total" in said["/metrics"]
    without_sender = said["status"].replace(f'"sender": "{CANARY}"', "")
    found = {
        (place, secret)
        for place, text in (said | {"status": without_sender}).items()
        for secret in secrets
        if secret in text
    }
    assert found == set()


def broken_files(folder: Path) -> Iterator[Path]:
    """Hands whose headers say the canary where a date, a UID or readable text belongs, one whose
    name cannot be decoded and one whose pixels are the canary."""
    replacements = {
        "birth-date": (b"2015010", CANARY.encode()[:7]),
        "study-uid": (b"2.25.", b"ZZCAN"),
        "study-date": (b"20260301", CANARY.encode()),
        "name": (b"ZZCANARY^TEST", b"ZZCANARY^T\xffST"),
    }
    for number, (name, (valid, broken)) in enumerate(replacements.items(), start=30):
        hand = radiograph(number, PatientName="ZZCANARY^TEST", PatientID="ZZCANARY1")
        hand.SOPInstanceUID = hand.file_meta.MediaStorageSOPInstanceUID = generate_uid("1.2.3.")
        hand.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        content = (folder / f"{name}.dcm").read_bytes()
        assert valid in content
        (folder / f"{name}.dcm").write_bytes(content.replace(valid, broken))
        yield folder / f"{name}.dcm"
    pixels = radiograph(40, PatientName="ZZCANARY^TEST")
    pixels.PixelData = CANARY.encode()
    pixels.save_as(folder / "pixels.dcm", enforce_file_format=True)
    yield folder / "pixels.dcm"


# Destinations that are down, that hang and that come back

EXAMS = 4


@pytest.mark.timeout(200)
def test_a_destination_that_was_down_gets_everything_and_delays_no_other(
    site: Site, study: Study, tmp_path: Path
) -> None:
    """``archive`` answers, ``late`` is down until it is started, ``silent`` takes connections and
    never answers. Another node's reports are among what is sent."""
    before = uids(site.pacs)
    with running_orthanc(tmp_path / "late") as late:
        pass  # it has run once: its ports are known, its database is empty
    hanging = ExitStack()
    silent_port = hanging.enter_context(canned_peer(b"", close=False))
    write_config(
        tmp_path / "node",
        [
            ("archive", Orthanc.ae_title, site.pacs.dicom_port),
            ("late", Orthanc.ae_title, late.dicom_port),
            ("silent", "SILENT", silent_port),
        ],
        extra=ONE_WORKER,
    )
    # The silent one is closed before the node stops, so that nobody waits for its answer.
    with running_node(tmp_path / "node") as node, hanging:
        send(node, [*radiograph_files(tmp_path / "sent", EXAMS), *saved_reports(site, tmp_path)])
        wait_until(lambda: len(uids(site.pacs) - before) == 2 * EXAMS, seconds=25)
        assert open_deliveries(node, "silent") == EXAMS  # one answer of its takes 30 s to miss

        wait_until(lambda: open_deliveries(node, "late", attempt=2) > 0, seconds=15)
        assert open_deliveries(node, "late") == EXAMS
        assert 0 < max(first_delays(node, "late")) <= FIRST_RETRY_SECONDS
        with started_again(tmp_path / "late", late):
            wait_until(lambda: late.count() == 2 * EXAMS, seconds=90)
            wait_until(lambda: open_deliveries(node, "late") == 0)
            assert uids(late) == uids(site.pacs) - before
        check_foreign_reports_are_ignored(node)


def send(node: Node, files: list[Path]) -> None:
    sent = list(send_files(files, node.peer, calling_ae_title="MODALITY"))
    assert {item.status for item in sent} == {0}


def saved_reports(site: Site, folder: Path) -> Iterator[Path]:
    """What the first node reported, as files."""
    for number, report in enumerate(stored_reports(site.pacs).values()):
        report.save_as(folder / f"report-{number}.dcm", enforce_file_format=True)
        yield folder / f"report-{number}.dcm"


def check_foreign_reports_are_ignored(node: Node) -> None:
    ledger = node.ledger()
    counts = ledger.outcome_counts()
    ledger.close()
    assert counts == {(Outcome.ASSESSED, None): EXAMS, (Outcome.IGNORED, "own_result"): 2}


def open_deliveries(node: Node, destination: str, *, attempt: int = 0) -> int:
    """Deliveries that wait or run and have been tried so often."""
    ledger = node.ledger()
    jobs = ledger.jobs(limit=1000)
    ledger.close()
    return sum(
        job.stage is Stage.DELIVER
        and job.destination == destination
        and job.state in (JobState.QUEUED, JobState.LEASED)
        and job.attempt >= attempt
        for job in jobs
    )


def first_delays(node: Node, destination: str) -> list[float]:
    """Seconds that each delivery waits after its first failure."""
    lines = map(json.loads, (node.folder / "node.log").read_text().splitlines())
    return [
        line["seconds"]
        for line in lines
        if (line["event"], line.get("destination"), line.get("attempt"))
        == ("job_retry", destination, 1)
    ]


@contextmanager
def started_again(folder: Path, orthanc: Orthanc) -> Iterator[None]:
    """The Orthanc that has its configuration in ``folder``, running."""
    with subprocess.Popen(
        [PROGRAM, folder / "orthanc.json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: answers(orthanc), seconds=60)
            yield
        finally:
            process.terminate()


def answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except OSError:
        return False


def uids(pacs: Orthanc) -> set[str]:
    """SOP Instance UIDs of all stored objects."""
    return {item["MainDicomTags"]["SOPInstanceUID"] for item in pacs.get("/instances?expand")}
