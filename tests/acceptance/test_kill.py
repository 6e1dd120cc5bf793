"""The promise, under fire: whatever dies, every acknowledged exam has one report of each kind.

A job whose worker is killed three times is parked, as a poisonous one would be. With kills this
frequent that can hit an innocent one; the test then does what the operator does: retry it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.adapters.audit import AuditFolders, read_entries
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.errors import Fault
from dicom_node.domain.job import JobState
from tests.builders.audit import schema_errors, xml_of
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import wait_until
from tests.peers.invariants import check_fates, check_rest, check_stopped
from tests.peers.node import Node, start_node, write_config
from tests.peers.orthanc import Orthanc, needs_orthanc, running_orthanc

_EXAMS = 200
_SENDERS = 8
_KILL_EVERY_SECONDS = 1.5
_DEADLINE_SECONDS = 240.0
_SR_CLASSES = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.22")


@needs_orthanc
@pytest.mark.timeout(900)
def test_no_acknowledged_exam_is_lost_or_reported_twice_when_every_process_is_killed(
    tmp_path: Path,
) -> None:
    files = radiograph_files(tmp_path / "sent", _EXAMS)
    with running_orthanc(tmp_path / "pacs") as pacs:
        write_config(
            tmp_path / "node",
            [("pacs", Orthanc.ae_title, pacs.dicom_port)],
            extra="[receive]\nprocesses = 2\n",
        )
        node = start_node(tmp_path / "node")
        try:
            with _killer(node) as killed:
                _send_until_acknowledged(node, files[: _EXAMS // 2])
                wait_until(lambda: len(killed) == len(node.children()), seconds=60)
            node.kill()  # everything at once, as at a power cut
            node = start_node(tmp_path / "node")
            with _killer(node):
                _send_until_acknowledged(node, files[_EXAMS // 2 :])
            node.wait_until_idle(_DEADLINE_SECONDS)
            _retry_what_crashed_too_often(node)
            _check_one_report_of_each_kind(node, pacs, files)

            stored = pacs.count()
            assert _send(node, files) == set(files)  # the whole list again, all acknowledged
            node.wait_until_idle(_DEADLINE_SECONDS)
            assert pacs.count() == stored
            _check_one_report_of_each_kind(node, pacs, files)
            check_rest(node)
            assert node.stop() == 0
        finally:
            if node.process.poll() is None:
                node.kill()
    check_stopped(node)
    _check_the_trail_names_every_study(tmp_path / "node" / "data" / "audit", files)


def _check_the_trail_names_every_study(audit: Path, files: list[Path]) -> None:
    """Whole messages, none half, and one at least of every study that came and that went."""
    for path in audit.glob("*.log"):
        assert not any(schema_errors(xml_of(line)) for line in path.read_bytes().splitlines())
    studies = {str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in files}
    entries = read_entries(AuditFolders(root=audit))
    for action in ("C", "R"):
        transferred = [e for e in entries if e.event == "DICOM Instances Transferred"]
        told = {thing for e in transferred if e.action == action for thing in e.what}
        assert {f"Study Instance UID {uid}" for uid in studies} <= told, action


@contextmanager
def _killer(node: Node) -> Iterator[set[str]]:
    """kill -9 for a random process of the node, again and again; yields the names it has hit."""
    stop = threading.Event()
    names: set[str] = set()
    chance = random.Random(7)

    def kill() -> None:
        while not stop.wait(_KILL_EVERY_SECONDS * chance.uniform(0.5, 1.5)):
            named = node.named()
            if not named:
                continue
            name = chance.choice(sorted(named))
            with suppress(ProcessLookupError):
                os.kill(named[name], signal.SIGKILL)
                names.add(name)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield names
    finally:
        stop.set()
        thread.join()


def _send_until_acknowledged(node: Node, files: list[Path]) -> None:
    """What a PACS does: send again what was not acknowledged."""
    left = set(files)

    def all_acknowledged() -> bool:
        left.difference_update(_send(node, sorted(left)))
        return not left

    wait_until(all_acknowledged, seconds=_DEADLINE_SECONDS)


def _send(node: Node, files: list[Path]) -> set[Path]:
    """Send from several senders at once; the files that were answered with 0x0000."""
    results = send_files(
        files, node.peer, calling_ae_title="MODALITY", associations=_SENDERS, timeout_seconds=20
    )
    return {sent.path for sent in results if sent.status == 0x0000}


def _retry_what_crashed_too_often(node: Node) -> None:
    ledger = node.ledger()
    parked = ledger.jobs(limit=_EXAMS, state=JobState.PARKED)
    assert {job.fault for job in parked} <= {Fault.CRASHED_REPEATEDLY}
    for job in parked:
        ledger.retry_job(job.job_id)
    ledger.close()
    node.wait_until_idle(_DEADLINE_SECONDS)


def _check_one_report_of_each_kind(node: Node, pacs: Orthanc, files: list[Path]) -> None:
    received = Counter(str(report["SOPInstanceUID"]) for report in pacs.reports())
    assert check_fates(node, files, received).reported == len(files)
    ledger = node.ledger()
    assert ledger.jobs(limit=10, state=JobState.PARKED) == []
    assert len(ledger.exams(limit=10 * _EXAMS)) == len(files)
    ledger.close()
    sources = [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]
    expected = Counter((str(source), kind) for source in sources for kind in _SR_CLASSES)
    assert Counter(_source_and_kind(report) for report in pacs.reports()) == expected


def _source_and_kind(report: dict[str, Any]) -> tuple[str, str]:
    [study] = report["CurrentRequestedProcedureEvidenceSequence"]
    [series] = study["ReferencedSeriesSequence"]
    [source] = series["ReferencedSOPSequence"]
    return source["ReferencedSOPInstanceUID"], report["SOPClassUID"]
