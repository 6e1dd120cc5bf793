"""A running node and Orthanc over time: corrected headers, growth, names, pictures, and a PACS that
takes one SOP class only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage, generate_uid

from dicom_node.adapters.ledger.queries import ExamDetails
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.delivery import ReportKind, Verdict
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState
from tests.builders.radiographs import radiograph
from tests.builders.reports import texts
from tests.integration.peers import free_port, running_storescp, taking
from tests.peers.node import Node, running_node, write_config
from tests.peers.orthanc import Orthanc, needs_orthanc, running_orthanc

pytestmark = needs_orthanc

EVERYTHING = """
[inference]
workers = 1
device = "cpu"
[[institutions]]
id = "hospital"
name = "Hospital"
calling_ae_titles = ["HOSPITAL"]
destinations = ["pacs"]
objects = ["measurements", "narrative", "capture", "pdf"]
[[institutions]]
id = "clinic"
name = "Clinic"
calling_ae_titles = ["CLINIC"]
destinations = ["old"]
[[institutions]]
id = "archive"
name = "Archive of old names"
calling_ae_titles = ["ARCHIVE"]
destinations = ["pacs"]
objects = ["narrative"]
character_set = "source"
language = "en"
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A node, a PACS that takes everything, and the folder of an old one that takes texts."""

    node: Node
    pacs: Orthanc
    old: Path
    folder: Path

    def send(self, dataset: Dataset, sender: str = "HOSPITAL") -> list[ExamDetails]:
        """Send an image, wait for its report; the exams of that instance."""
        path = self.folder / f"{generate_uid()}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        [sent] = send_files([path], self.node.peer, calling_ae_title=sender)
        assert sent.status == 0
        return self.exams(dataset)

    def exams(self, dataset: Dataset) -> list[ExamDetails]:
        """What the ledger knows of an image, once nothing moves any more."""
        self.node.wait_until_idle(90)
        ledger = self.node.ledger()
        found = [ledger.exam_details(i) for i in ledger.exam_ids(dataset.SOPInstanceUID)]
        ledger.close()
        return found

    def stored(self, details: ExamDetails, revision: int) -> dict[ReportKind, Dataset]:
        """The objects of a revision as the PACS has them."""
        uids = {r.sop_instance_uid: r.kind for r in details.reports if r.revision == revision}
        return {kind: dcmread(BytesIO(self.bytes_of(uid))) for uid, kind in uids.items()}

    def bytes_of(self, sop_instance_uid: str) -> bytes:
        """A stored object's file."""
        return self.pacs.get_bytes(f"/instances/{self.orthanc_id(sop_instance_uid)}/file")

    def orthanc_id(self, sop_instance_uid: str) -> str:
        """Orthanc's own name of an object."""
        [found] = self.pacs.post("/tools/lookup", sop_instance_uid.encode())
        return str(found["ID"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sent").mkdir()
    with ExitStack() as running:
        pacs = running.enter_context(running_orthanc(folder / "pacs", node_port=free_port()))
        old = running.enter_context(
            running_storescp(folder / "old", *taking(folder, BasicTextSRStorage))
        )
        destinations = [("pacs", Orthanc.ae_title, pacs.dicom_port), ("old", "OLD", old)]
        write_config(folder / "node", destinations, extra=EVERYTHING)
        node = running.enter_context(running_node(folder / "node"))
        yield Site(node=node, pacs=pacs, old=folder / "old", folder=folder / "sent")


def child(**values: Any) -> Dataset:
    """A boy's hand that the model is sure of; every call is another image of another study."""
    uids = {"SOPInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    dataset = radiograph(0, **{**uids, **values})
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


@pytest.fixture(scope="module")
def first(site: Site) -> Dataset:
    """A child's first exam, reported."""
    dataset = child(PatientID="GROWS", StudyDate="20250301", PatientBirthDate="20110115")
    [details] = site.send(dataset)
    assert details.exam.outcome is Outcome.ASSESSED
    return dataset


def test_every_object_arrives_and_the_pacs_can_show_the_picture(site: Site, first: Dataset) -> None:
    [details] = site.exams(first)
    objects = site.stored(details, 1)
    assert set(objects) == set(ReportKind)
    capture = objects[ReportKind.CAPTURE]
    preview = site.pacs.get_bytes(f"/instances/{site.orthanc_id(capture.SOPInstanceUID)}/preview")
    with Image.open(BytesIO(preview)) as shown:
        assert shown.size == (1920, 1080)
        assert np.ptp(np.asarray(shown.convert("L"))) > 200
    page = site.pacs.get_bytes(
        f"/instances/{site.orthanc_id(objects[ReportKind.PDF].SOPInstanceUID)}/pdf"
    )
    assert page.startswith(b"%PDF-")
    assert {d.verdict for d in details.deliveries} == {Verdict.STORED}


def test_a_later_exam_is_compared_with_the_first(site: Site, first: Dataset) -> None:
    later = child(PatientID="GROWS", StudyDate="20260301", PatientBirthDate="20110115")
    stranger = child(PatientID="OTHER", StudyDate="20260301", PatientBirthDate="20110115")
    said = []
    for dataset in (later, stranger):
        [details] = site.send(dataset)
        said.append(texts(site.stored(details, 1)[ReportKind.NARRATIVE]))
    assert "Exame anterior de 01/03/2025" in said[0]
    assert "em 12,0 meses" in said[0]
    assert "Exame anterior" not in said[1]


def test_a_corrected_header_revises_the_report(site: Site) -> None:
    wrong = child(PatientID="WRONG", PatientBirthDate="20150101")
    [details] = site.send(wrong)
    before = site.stored(details, 1)
    right = child(
        PatientID="RIGHT",
        PatientBirthDate="20100101",
        SOPInstanceUID=wrong.SOPInstanceUID,
        StudyInstanceUID=wrong.StudyInstanceUID,
        SeriesInstanceUID=wrong.SeriesInstanceUID,
    )
    [_, parked] = site.send(right)
    [job] = [job for job in parked.jobs if job.state is JobState.PARKED]
    ledger = site.node.ledger()
    ledger.retry_job(job.job_id)
    ledger.close()
    [_, corrected] = site.exams(right)
    after = site.stored(corrected, 2)
    assert set(after) == set(ReportKind)
    for kind, document in after.items():
        assert document.PatientID == "RIGHT"
        assert document.SeriesInstanceUID == before[kind].SeriesInstanceUID
        assert document.InstanceNumber == 2
    for kind in (ReportKind.MEASUREMENTS, ReportKind.NARRATIVE):
        [study] = after[kind].PredecessorDocumentsSequence
        [series] = study.ReferencedSeriesSequence
        [replaced] = series.ReferencedSOPSequence
        assert replaced.ReferencedSOPInstanceUID == before[kind].SOPInstanceUID


def test_an_exam_assessed_again_sends_nothing_where_nothing_has_changed(
    site: Site, first: Dataset
) -> None:
    [before] = site.exams(first)
    count = site.pacs.count()
    ledger = site.node.ledger()
    ledger.reassess(before.exam.exam_id)
    ledger.close()
    [after] = site.exams(first)
    assert len(after.jobs) == 2 * len(before.jobs)
    assert {job.state for job in after.jobs} == {JobState.DONE}
    assert (after.reports, after.deliveries) == (before.reports, before.deliveries)
    assert site.pacs.count() == count


def test_a_pacs_that_takes_basic_text_only_gets_the_text(site: Site) -> None:
    [details] = site.send(child(), sender="CLINIC")
    [stored] = [dcmread(path) for path in site.old.iterdir()]
    assert stored.SOPClassUID == BasicTextSRStorage
    assert "Idade óssea estimada" in texts(stored)
    by_verdict = {delivery.verdict: delivery for delivery in details.deliveries}
    assert set(by_verdict) == {Verdict.STORED, Verdict.NOT_TAKEN}
    assert by_verdict[Verdict.STORED].sent_sop_class_uid == BasicTextSRStorage
    assert by_verdict[Verdict.STORED].sent_sop_instance_uid == stored.SOPInstanceUID
    assert by_verdict[Verdict.NOT_TAKEN].status == 0x0122
    assert {job.state for job in details.jobs} == {JobState.DONE}


NAMES = [
    (["ISO_IR 100"], "Muñoz Gonçalves^João Ítalo", "latin-1"),
    (["ISO_IR 144"], "Люкceмбypг", "iso8859_5"),
    (["ISO_IR 192"], "王^小東=王^小东", "utf-8"),
    (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "ascii"),
]


@pytest.mark.parametrize(("character_set", "name", "codec"), NAMES)
@pytest.mark.parametrize("sender", ["HOSPITAL", "ARCHIVE"])
def test_names_survive_into_the_pacs_and_back(
    site: Site, sender: str, character_set: list[str], name: str, codec: str
) -> None:
    dataset = child(SpecificCharacterSet=character_set, PatientName=name)
    [details] = site.send(dataset, sender=sender)
    narrative = site.stored(details, 1)[ReportKind.NARRATIVE]
    assert str(narrative.PatientName) == name
    raw = site.bytes_of(narrative.SOPInstanceUID)
    if sender == "HOSPITAL":
        assert narrative.SpecificCharacterSet == "ISO_IR 192"
        assert name.encode() in raw
    else:
        assert narrative.SpecificCharacterSet == dataset.SpecificCharacterSet
        assert name.split("=", maxsplit=1)[0].encode(codec) in raw
