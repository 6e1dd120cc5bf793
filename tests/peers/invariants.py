"""What must hold after every fault: the promise, as a check of a whole node.

Acknowledged is a part of reported and parked; each report is once in the PACS, and nothing else is;
no file, child or association is left; the metrics add up to what the ledger holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from pydicom import dcmread

from dicom_node.adapters.ledger.queries import ExamDetails, OperatorLedger
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState
from tests.integration.peers import wait_until
from tests.peers.node import MOVING, Node

NARRATIVE = "1.2.840.10008.5.1.4.1.1.88.22"
"""Enhanced SR: of a hand that was not assessed it is all."""
BOTH = {"1.2.840.10008.5.1.4.1.1.88.34", NARRATIVE}
"""Both documents of an assessed hand."""


@dataclass(frozen=True, kw_only=True)
class Fates:
    """What became of the acknowledged images. One may be reported and have a parked exam too."""

    reported: int
    parked: int
    ignored: int


def check_fates(node: Node, acknowledged: Collection[Path], received: Counter[str]) -> Fates:
    """As :func:`check_fates_of`, for the files of the images."""
    images = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in acknowledged]
    return check_fates_of(node, images, received)


def check_fates_of(node: Node, acknowledged: Collection[str], received: Counter[str]) -> Fates:
    """Every acknowledged image is reported, parked or none of ours; every report is once in the
    PACS. ``acknowledged``: SOP Instance UIDs of images; ``received``: of the PACS's objects."""
    assert not {uid: count for uid, count in received.items() if count > 1}
    ledger = node.ledger()
    sends = bool(node.settings.destinations)
    fates = Counter(
        fate for image in acknowledged for fate in _fates(ledger, image, received, sends=sends)
    )
    stored = {
        answer.sent_sop_instance_uid
        for exam in ledger.exams(limit=10**6)
        for answer in ledger.exam_details(exam.exam_id).deliveries
    }
    ledger.close()
    assert received.keys() <= stored, "the PACS has what the node knows nothing of"
    return Fates(reported=fates["reported"], parked=fates["parked"], ignored=fates["ignored"])


def stored_in(folder: Path) -> Counter[str]:
    """SOP Instance UIDs of what a storescp of DCMTK has stored."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return Counter(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files)


def _fates(ledger: OperatorLedger, uid: str, received: Counter[str], *, sends: bool) -> set[str]:
    exams = [ledger.exam_details(exam_id) for exam_id in ledger.exam_ids(uid)]
    assert exams, f"{uid} was acknowledged and has no exam"
    return {_fate(exam, received, sends=sends) for exam in exams}


def _fate(exam: ExamDetails, received: Counter[str], *, sends: bool) -> str:
    states = {job.state for job in exam.jobs}
    assert states.isdisjoint(MOVING), "wait until the node is idle first"
    if JobState.PARKED in states:
        return "parked"
    assert exam.exam.outcome is not Outcome.PENDING
    if exam.exam.outcome is Outcome.IGNORED:
        return "ignored"
    _check_reported(exam, received, sends=sends)
    return "reported"


def _check_reported(exam: ExamDetails, received: Counter[str], *, sends: bool) -> None:
    there = {a.sop_instance_uid for a in exam.deliveries if a.verdict is Verdict.STORED}
    sent = {a.sent_sop_instance_uid for a in exam.deliveries if a.verdict is Verdict.STORED}
    last = max(report.revision for report in exam.reports)
    due = {report.sop_instance_uid for report in exam.reports if report.revision == last}
    classes = {report.sop_class_uid for report in exam.reports if report.revision == last}
    assert classes == (BOTH if exam.exam.outcome is Outcome.ASSESSED else {NARRATIVE})
    assert due <= there or not sends, "done, but not answered for"
    assert sent <= received.keys(), "answered for, but not in the PACS"


def check_rest(
    node: Node, *, answered: int | None = None, restarts: int | None = None
) -> dict[str, float]:
    """A running node without work holds nothing, and its metrics agree with its ledger; they are
    returned.

    ``answered``: C-STOREs that the senders saw succeed since the node started, where no process
    died meanwhile. ``restarts``: of its processes since it started.
    """
    wait_until(lambda: metrics(node).get("dicom_node_associations_open", 0) == 0)
    assert node.partial_files() == []
    found = metrics(node)
    ledger = node.ledger()
    depths, outcomes = ledger.queue_depths(), ledger.outcome_counts()
    ledger.close()
    jobs = {name: n for name, n in found.items() if name.startswith("dicom_node_jobs{") and n}
    assert jobs == {
        f"dicom_node_jobs{{{stage},{state}}}": n for (stage, state), n in depths.items()
    }
    ended = sum(n for (outcome, _), n in outcomes.items() if outcome is not Outcome.PENDING)
    assert total(found, "dicom_node_exams_total") <= ended
    if answered is not None:
        assert found["dicom_node_cstore_total{0x0000}"] == answered
    if restarts is not None:
        assert total(found, "dicom_node_process_restarts_total") == restarts
    return found


def check_stopped(node: Node) -> None:
    """A stopped node has left no process and no half file."""
    wait_until(lambda: node.survivors() == [])
    assert node.partial_files() == []


def metrics(node: Node) -> dict[str, float]:
    """Name with its label values, as ``dicom_node_jobs{screen,queued}``, to number."""
    families = text_string_to_metric_families(node.get("/metrics"))
    samples = [sample for family in families for sample in family.samples]
    return {
        f"{s.name}{{{','.join(s.labels.values())}}}" if s.labels else s.name: s.value
        for s in samples
    }


def total(found: dict[str, float], name: str) -> float:
    """The sum over all labels."""
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)
