"""`dicom-node demo` from one command to the reports, and a node that is stopped in mid-work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from dicom_node.adapters.ledger.queries import ExamDetails
from dicom_node.adapters.scu.association import Peer
from dicom_node.adapters.scu.exam_sender import Sent, send_files
from dicom_node.domain.job import JobState
from dicom_node.scp.archive_peer import ArchivePeer
from sr_templates.concepts import BONE_AGE, UNCERTAINTY
from tests.builders.radiographs import radiograph, radiograph_files
from tests.integration.peers import free_port, wait_until
from tests.peers.node import Node, start_node, write_config

COUNT = 3
OUTCOMES = ["assessed", "not_assessed", "assessed"]
"""The model doubts one of the drawn hands; it learned from real ones."""
MEASUREMENTS = "1.2.840.10008.5.1.4.1.1.88.34"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One run of the demonstration."""

    code: int
    out: str
    err: str
    folder: Path
    """Where it kept everything."""

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Its JSON lines: fails when anything else stands on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**values: str) -> Mapping[str, str]:
    """This one without proxies and configuration, in English."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in PROXIES and not name.startswith(("LC_", "LANG", "DICOM_NODE_"))
    }
    return clean | values


def command(out: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "dicom_node", "demo", "--out", str(out), *map(str, arguments)]


def run_demo(out: Path, *arguments: object, **values: str) -> Demo:
    done = subprocess.run(
        command(out, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=environment(**values),
    )
    [folder] = out.iterdir()
    return Demo(code=done.returncode, out=done.stdout, err=done.stderr, folder=folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """``dicom-node demo --count 3 --json``."""
    return run_demo(tmp_path_factory.mktemp("demo") / "out", "--count", COUNT, "--json")


def test_the_demonstration_answers_every_radiograph(demo: Demo) -> None:
    assert demo.code == 0, demo.err
    assert [answer["outcome"] for answer in demo.answers] == OUTCOMES
    assert [answer["error"] for answer in demo.answers] == [""] * COUNT
    assert all(answer["report_seconds"] > 0 for answer in demo.answers)
    assert f"{COUNT} of {COUNT} radiographs answered" in demo.err
    assert str(demo.folder) in demo.err


def test_the_demonstration_leaves_reports_and_pictures(demo: Demo) -> None:
    for answer in demo.answers:
        assert len(answer["reports"]) == (2 if answer["outcome"] == "assessed" else 1)
        source = dcmread(answer["file"], stop_before_pixels=True)
        for path in answer["reports"]:
            report = dcmread(path)
            assert report.Modality == "SR"
            assert report.StudyInstanceUID == source.StudyInstanceUID
        if answer["outcome"] != "assessed":
            assert answer["picture"] is None
            continue
        with Image.open(answer["picture"]) as picture:
            assert picture.format == "PNG"
            assert len(picture.getcolors(maxcolors=picture.width * picture.height) or []) > 100


def test_the_bone_age_that_the_demonstration_states_is_the_one_in_the_report(demo: Demo) -> None:
    for answer in (one for one in demo.answers if one["outcome"] == "assessed"):
        [report] = [r for r in map(dcmread, answer["reports"]) if r.SOPClassUID == MEASUREMENTS]
        stated = dict(numbers(report))
        assert stated[BONE_AGE.value] == round(answer["bone_age_months"], 2)
        assert stated[UNCERTAINTY.value] == round(answer["sd_months"], 2)


def numbers(container: Dataset) -> Iterator[tuple[str, float]]:
    """Concept code and value of every NUM item below a container (PS3.3 C.18.1)."""
    for item in container.get("ContentSequence", []):
        if item.ValueType == "NUM":
            value = float(item.MeasuredValueSequence[0].NumericValue)
            yield item.ConceptNameCodeSequence[0].CodeValue, value
        yield from numbers(item)


def processes_about(folder: Path) -> list[int]:
    """Process ids whose command line names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if os.fsencode(folder) in words:
            found.append(int(process.name))
    return found


def test_the_demonstration_leaves_no_process_behind(demo: Demo) -> None:
    assert processes_about(demo.folder) == []
    last = (demo.folder / "node.log").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "node_stopped"


def test_a_demonstration_that_is_terminated_takes_its_node_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command(out, "--count", 1),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as running:
        wait_until(lambda: len(processes_about(out)) > 3, seconds=60)  # the node has processes
        running.terminate()
        assert running.wait(120) != 0
    wait_until(lambda: processes_about(out) == [], seconds=10)


def test_own_radiographs_are_shown_with_their_report_in_words(tmp_path: Path) -> None:
    """The files share their name; the environment names a proxy that nobody runs."""
    files = []
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "hand.dcm")
        radiograph(number).save_as(files[-1], enforce_file_format=True)
    proxy = f"http://127.0.0.1:{free_port()}"
    demo = run_demo(tmp_path / "out", *files, http_proxy=proxy, no_proxy="")
    assert demo.code == 0, demo.err
    assert demo.out.count("hand.dcm") == 2
    assert demo.out.count("Estimated bone age:") == 4  # finding and impression of each
    assert demo.out.count("s from the C-STORE response to the report in the PACS") == 2
    assert len(list((demo.folder / "pictures").iterdir())) == 2


def test_a_file_that_is_no_dicom_is_named_and_the_others_are_answered(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not DICOM")
    [hand] = radiograph_files(tmp_path / "hands", 1)
    demo = run_demo(tmp_path / "out", text, hand, "--json")
    found = {Path(answer["file"]).name: answer for answer in demo.answers}
    assert demo.code == 1
    assert "notes.txt: is not a readable DICOM file" in found["notes.txt"]["error"]
    assert found[hand.name]["outcome"] == "assessed"
    assert "Traceback" not in demo.err
    assert "1 of 2 radiographs answered" in demo.err


# SIGTERM under load

LOAD = 40
STOP_AFTER = 15


def test_a_node_that_is_stopped_under_load_drains_and_reports_the_rest_after_a_restart(
    tmp_path: Path,
) -> None:
    files = radiograph_files(tmp_path / "sent", LOAD)
    archive = ArchivePeer(tmp_path / "archive")
    archive.start()
    write_config(tmp_path / "node", [("archive", archive.ae_title, archive.bound_port)])
    node = start_node(tmp_path / "node")
    sender = Sender(files, node.peer)
    sender.start()
    wait_until(lambda: len(sender.acknowledged) >= STOP_AFTER, seconds=60)
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(120) == 0
    sender.join(60)
    assert not sender.is_alive()

    exams = exams_of(node)
    assert len(exams) >= len(sender.acknowledged) >= STOP_AFTER
    assert all(is_reported(exam) or is_queued(exam) for exam in exams)
    assert any(is_queued(exam) for exam in exams)  # else it was no load

    node = start_node(tmp_path / "node")
    node.wait_until_idle(120)
    exams = exams_of(node)
    assert all(is_reported(exam) for exam in exams)
    assert len(archive.arrived) == 2 * len(exams)

    again = list(send_files(files, node.peer, calling_ae_title="MODALITY", associations=4))
    assert {sent.status for sent in again} == {0}
    node.wait_until_idle(120)
    reports = [report for exam in exams_of(node) for report in exam.reports]
    assert set(archive.arrived) == {report.sop_instance_uid for report in reports}
    assert len(archive.arrived) == 2 * LOAD
    assert node.stop() == 0
    archive.stop()


def exams_of(node: Node) -> list[ExamDetails]:
    ledger = node.ledger()
    found = [ledger.exam_details(summary.exam_id) for summary in ledger.exams(limit=1000)]
    ledger.close()
    return found


def is_reported(exam: ExamDetails) -> bool:
    """Both objects are in the archive and nothing is left to do."""
    return len(exam.deliveries) == 2 and {job.state for job in exam.jobs} == {JobState.DONE}


def is_queued(exam: ExamDetails) -> bool:
    """Exactly one job waits; the stages before it are done."""
    *before, last = exam.jobs
    return last.state is JobState.QUEUED and {job.state for job in before} <= {JobState.DONE}


class Sender(threading.Thread):
    """Sends files on several associations and notes which were answered with 0x0000."""

    def __init__(self, files: list[Path], peer: Peer) -> None:
        super().__init__()
        self._files = files
        self._peer = peer
        self.acknowledged: list[Sent] = []

    def run(self) -> None:
        for sent in send_files(
            self._files, self._peer, calling_ae_title="MODALITY", associations=4, timeout_seconds=20
        ):
            if sent.status == 0:
                self.acknowledged.append(sent)
