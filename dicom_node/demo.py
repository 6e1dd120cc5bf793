"""`dicom-node demo`: the whole path on one machine, on its real parts, ending with the reports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset, dcmread

from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.adapters.ledger.queries import ExamDetails
from dicom_node.adapters.scu.association import Peer
from dicom_node.adapters.scu.exam_sender import Sent, send_files
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState
from dicom_node.folders import Folders
from dicom_node.headers import read_identity
from dicom_node.node import read_address, readiness
from dicom_node.offline import picture_names
from dicom_node.scp.archive_peer import ArchivePeer
from dicom_node.settings import Settings, load_settings
from dicom_node.wiring import Wiring

_START_SECONDS = 60.0
_REPORT_SECONDS = 120.0
_STOP_SECONDS = 120.0
_POLL_SECONDS = 0.05
_SENDER = "DEMO-MODALITY"
_ARCHIVE = "DEMO-PACS"
_MEASUREMENT_REPORT = "126000"
"""Title of a TID 1500 document; the text report has another."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one radiograph. ``report_seconds``: from the C-STORE response to the
    arrival of the last report object; None without a report."""

    file: Path
    error: str = ""
    exam_id: int | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    bone_age_months: float | None = None
    sd_months: float | None = None
    report_seconds: float | None = None
    reports: tuple[Path, ...] = ()
    picture: Path | None = None

    @property
    def ended(self) -> bool:
        """Whether the node has said its last word: a report in the archive, or nothing to say."""
        return self.report_seconds is not None or self.outcome is Outcome.IGNORED


@dataclass(frozen=True, kw_only=True)
class DemoFolder:
    """Where the demonstration takes place: one new folder for each run."""

    root: Path

    @property
    def config(self) -> Path:
        """The node's configuration."""
        return self.root / "node.toml"

    @property
    def log(self) -> Path:
        """The node's events."""
        return self.root / "node.log"

    @property
    def pictures(self) -> Path:
        """The annotated radiographs."""
        return self.root / "pictures"

    @property
    def pacs(self) -> Path:
        """What the archive received."""
        return self.root / "pacs"


def new_folder(out: Path) -> DemoFolder:
    """Make the folder of this run below ``out``. Raises ``OSError``."""
    root = out / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    root.mkdir(parents=True)
    return DemoFolder(root=root.resolve())


def draw_phantoms(folder: DemoFolder, *, count: int, seed: int) -> list[Path]:
    """Write synthetic hand radiographs of different ages and return their files."""
    from inference.phantom.dicom import write_radiograph
    from inference.phantom.exams import phantom_exams

    drawn = folder.root / "radiographs"
    drawn.mkdir()
    files = []
    for index, exam in enumerate(phantom_exams(count, seed=seed), start=1):
        files.append(drawn / f"synthetic-{index}-{exam.sex}-{exam.bone_age_months:.0f}mo.dcm")
        write_radiograph(files[-1], exam)
    return files


@contextmanager
def archive_in(folder: DemoFolder) -> Iterator[ArchivePeer]:
    """A storage SCP that plays the PACS."""
    archive = ArchivePeer(folder.pacs, ae_title=_ARCHIVE)
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


@contextmanager
def running_node(folder: DemoFolder, archive: ArchivePeer, language: str) -> Iterator[Settings]:
    """Run `dicom-node serve` on free ports; drain it at the end."""
    folder.config.write_text(_configuration(folder, archive, language), encoding="utf-8")
    settings = load_settings(folder.config)
    command = (sys.executable, "-m", "dicom_node", "serve", "--config", str(folder.config))
    with folder.log.open("wb") as log, subprocess.Popen(command, stderr=log) as node:  # noqa: S603 our own module
        try:
            _wait_until_ready(node, settings, folder)
            yield settings
        finally:
            node.terminate()
            node.wait(_STOP_SECONDS)


def address(settings: Settings) -> Peer:
    """Where the running node listens."""
    port = read_address(Folders(root=settings.node.data_dir))["port"]
    return Peer(host=settings.node.bind, port=port, ae_title=settings.node.ae_title)


def exchange(
    files: Sequence[Path], settings: Settings, archive: ArchivePeer, folder: DemoFolder
) -> Iterator[Answer]:
    """Send every file, wait for its report and yield what came back, in the order of sending."""
    wiring = Wiring(settings)
    operator = OperatorLedger(wiring.folders.ledger, wiring.clock)
    names = picture_names(files)
    answered: dict[Path, tuple[Sent, float]] = {}
    for sent in send_files(files, address(settings), calling_ae_title=_SENDER):
        answered[sent.path] = (sent, time.monotonic())
    try:
        for sent, answered_at in answered.values():
            if sent.status != 0:
                status = "" if sent.status is None else f"status {sent.status:04X} "
                yield Answer(file=sent.path, error=f"{status}{sent.error}".strip())
            else:
                target = folder.pictures / names[sent.path]
                yield _answer(wiring, operator, archive, target, sent.path, answered_at)
    finally:
        operator.close()


def _answer(
    wiring: Wiring,
    operator: OperatorLedger,
    archive: ArchivePeer,
    picture: Path,
    file: Path,
    answered_at: float,
) -> Answer:
    details = _wait_for_end(operator, _exam_id(operator, file))
    prediction = details.prediction
    uids = [report.sop_instance_uid for report in details.reports]
    arrived = archive.arrived
    complete = bool(uids) and all(uid in arrived for uid in uids)
    return Answer(
        file=file,
        exam_id=details.exam.exam_id,
        outcome=details.exam.outcome,
        reason=details.exam.reason or _fault(details),
        bone_age_months=prediction.bone_age_months if prediction else None,
        sd_months=prediction.sd_months if prediction else None,
        report_seconds=max(arrived[uid] for uid in uids) - answered_at if complete else None,
        reports=tuple(archive.path(uid) for uid in uids if uid in arrived),
        picture=_draw(wiring, details, picture, file),
    )


def _exam_id(operator: OperatorLedger, file: Path) -> int:
    exam_ids = operator.exam_ids(read_identity(file).sop_instance_uid)
    if not exam_ids:
        raise Transient(Fault.STORAGE_UNAVAILABLE, f"{file}: acknowledged, but not in the ledger")
    return exam_ids[-1]


def _wait_for_end(operator: OperatorLedger, exam_id: int) -> ExamDetails:
    """The exam once no job of it can go on by itself, or as it stands when time is over."""
    deadline = time.monotonic() + _REPORT_SECONDS
    while True:
        details = operator.exam_details(exam_id)
        moving = any(job.state in (JobState.QUEUED, JobState.LEASED) for job in details.jobs)
        if not moving or time.monotonic() > deadline:
            return details
        time.sleep(_POLL_SECONDS)


def _fault(details: ExamDetails) -> str | None:
    parked = [job.fault for job in details.jobs if job.state is JobState.PARKED]
    return str(parked[0]) if parked else None


def _draw(wiring: Wiring, details: ExamDetails, picture: Path, file: Path) -> Path | None:
    if details.prediction is None or details.eligibility is None:
        return None
    picture.parent.mkdir(exist_ok=True)
    assessment = wiring.assessment(details.eligibility, details.prediction)
    wiring.picture(file, assessment, wiring.settings.node.language).save(picture)
    return picture


def _wait_until_ready(
    node: subprocess.Popen[bytes], settings: Settings, folder: DemoFolder
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while readiness(settings).get("status") != "ok":
        if node.poll() is not None or time.monotonic() > deadline:
            raise Transient(
                Fault.PREDICTOR_UNAVAILABLE, f"the node did not become ready: see {folder.log}"
            )
        time.sleep(_POLL_SECONDS)


def _configuration(folder: DemoFolder, archive: ArchivePeer, language: str) -> str:
    quote = json.dumps  # a TOML basic string is a JSON string
    return (
        "[node]\n"
        'name = "demo"\n'
        "port = 0\n"
        "metrics_port = 0\n"
        f"data_dir = {quote(str(folder.root / 'data'))}\n"
        f"language = {quote(language)}\n"
        "\n[[destinations]]\n"
        f'name = "demo-pacs"\nae_title = "{_ARCHIVE}"\nhost = "127.0.0.1"\n'
        f"port = {archive.bound_port}\n"
    )


def narrative_of(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """The text report as (heading, sentence) pairs, from the stored object itself (PS3.3 C.17.3).

    Empty when none of the files is a text report.
    """
    for path in paths:
        document = dcmread(path)
        if document.ConceptNameCodeSequence[0].CodeValue != _MEASUREMENT_REPORT:
            sections = [i for i in document.ContentSequence if i.ValueType == "CONTAINER"]
            return [pair for section in sections for pair in _sentences(section)]
    return []


def _sentences(section: Dataset) -> Iterator[tuple[str, str]]:
    heading = section.ConceptNameCodeSequence[0].CodeMeaning
    for item in section.ContentSequence:
        if item.ValueType == "TEXT":
            yield heading, item.TextValue
