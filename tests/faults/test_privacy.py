"""A patient named ZZCANARY goes every way through a node, also those that fail: outside the data
folder nothing names her, and within it only objects, reports and the audit trail do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.job import JobState
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import free_port, wait_until
from tests.peers.node import Node, running_node, write_config

CANARY = "ZZCANARY"
HER_PLACES = {"spool", "ledger.sqlite", "ledger.sqlite-wal", "audit"}
"""Where she stands in the data folder: what was received, its reports, and who did what with it."""


def canary(**values: object) -> Dataset:
    """Her name stands in every text of the header."""
    texts = dict.fromkeys(
        (
            "PatientName",
            "PatientID",
            "OtherPatientIDs",
            "AccessionNumber",
            "StudyDescription",
            "SeriesDescription",
            "ReferringPhysicianName",
            "OperatorsName",
            "InstitutionName",
            "PatientComments",
            "ProtocolName",
            "StudyID",
            "StationName",
        ),
        CANARY,
    )
    return hand_dataset(side_pixels=300, **{**texts, **values})


def ways(folder: Path) -> list[Path]:
    """Images that end in as many ways as there are."""
    uid = generate_uid()
    datasets = {
        "assessed or not": canary(),
        "no sex": canary(PatientSex=CANARY),
        "no hand": canary(BodyPartExamined=CANARY),
        "a modality that is none": canary(Modality=CANARY),
        "colour": canary(PhotometricInterpretation=CANARY),
        "no pixels": canary(PixelData=b""),
        "short pixels": canary(PixelData=CANARY.encode()),
        "rows that lie": canary(Rows=60000),
        "first content": canary(SOPInstanceUID=uid),
        "other content": canary(SOPInstanceUID=uid, PatientID=f"{CANARY}2"),
        "numbers that are none": canary(WindowCenter="1", RescaleSlope="1"),
    }
    with disable_value_validation():
        datasets |= {
            "dates that are none": canary(PatientBirthDate=CANARY, StudyDate=CANARY),
            "an age that is none": canary(PatientAge=CANARY),
        }
        paths = [write_file(folder / f"{name}.dcm", made) for name, made in datasets.items()]
    unknown = folder / "an unknown character set.dcm"
    unknown.write_bytes(
        write_file(unknown, canary()).read_bytes().replace(b"ISO_IR 192", b"ZZCANARY  ")
    )
    lying = write_file(
        folder / "lying.dcm",
        canary(PixelData=encapsulate([CANARY.encode() * 100])),
        transfer_syntax_uid=JPEG2000Lossless,
    )
    broken = folder / "broken.dcm"
    whole = paths[0].read_bytes()
    broken.write_bytes(whole[:700] + CANARY.encode() * 20)
    return [*paths, unknown, lying, broken]


def command(node: Node, *arguments: str) -> str:
    """All that a command prints, whatever it thinks of it."""
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", *arguments, "--config", str(node.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_nothing_outside_the_data_folder_names_a_patient(tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    files = ways(folder)
    write_config(tmp_path / "node", [("pacs", "PACS", free_port())])
    with running_node(tmp_path / "node") as node:
        for path in files:
            list(send_files([path], node.peer, calling_ae_title="MODALITY", timeout_seconds=30))
        for pid in node.decoders():
            os.kill(pid, signal.SIGSEGV)
        again = write_file(folder / "after a crash.dcm", canary())
        list(send_files([again], node.peer, calling_ae_title="MODALITY", timeout_seconds=30))
        wait_until(lambda: not unfinished(node), seconds=120)

        ledger = node.ledger()
        exams = [exam.exam_id for exam in ledger.exams(limit=100)]
        parked = ledger.jobs(limit=100, state=JobState.PARKED)
        ledger.close()
        assert len(exams) > 10
        assert parked, "one content conflicts with another"
        said = [command(node, "exam", "show", str(exam), "--json") for exam in exams]
        said += [command(node, "exam", "show", str(exam)) for exam in exams[:3]]
        said += [command(node, *words) for words in (("status",), ("exam", "list"), ("doctor",))]
        said += [command(node, "job", "list"), node.get("/metrics"), node.get("/livez")]
        data = node.settings.node.data_dir
        assert {"spool", "audit"} <= places_that_name_her(data) <= HER_PLACES
        run = data / "run"
        said += [path.read_bytes().decode("latin-1") for path in run.rglob("*") if path.is_file()]
    assert places_that_name_her(data) <= HER_PLACES
    assert any(CANARY.encode() in path.read_bytes() for path in (data / "audit").glob("*.log"))
    log = (tmp_path / "node" / "node.log").read_text()
    assert log.count("\n") > 50
    assert CANARY not in log
    uids = {line for line in log.split('"') if line.startswith(("1.2.826.0.1.3680043", "2.25."))}
    assert uids == set(), "the log names no object"
    assert not [text[:300] for text in said if CANARY in text]
    assert not list(tmp_path.glob("**/core*"))


def places_that_name_her(data: Path) -> set[str]:
    """First parts of the paths below the data folder whose files name her."""
    found = set()
    for path in data.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a message that was forwarded meanwhile
            if path.is_file() and CANARY.encode() in path.read_bytes():
                found.add(path.relative_to(data).parts[0])
    return found


def unfinished(node: Node) -> bool:
    """Whether anything but deliveries, whose destination is away, is to be done."""
    ledger = node.ledger()
    depths = ledger.queue_depths()
    ledger.close()
    moving = (JobState.QUEUED, JobState.LEASED)
    return any(n for (stage, state), n in depths.items() if stage != "deliver" and state in moving)
