"""One exam at a time through a whole node with the released model, to an Orthanc that took its
report: where the milliseconds go, and what each step would take at least.

`make bench` runs it and writes `build/benchmarks/one_exam.json`. Steps are taken from the node's
log. The floors are measured in the same run, after the node has stopped: the same bytes through
the bare libraries, and one synced transaction of SQLite for each step that has one.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table

import inference
from dicom_node.adapters.scu.association import contexts_for, open_association
from dicom_node.headers import read_identity
from inference.bundle import find_bundle
from inference.phantom.dicom import write_radiograph
from inference.phantom.exams import phantom_exams
from inference.predictor import load_predictor
from inference.preprocess import STORED_SIDE
from tests.builders.dicom_files import data_set_bytes
from tests.integration.peers import peer_at, wait_until
from tests.load.modality import Modality
from tests.peers.node import Node, running_node, write_config
from tests.peers.orthanc import Orthanc, needs_orthanc, running_orthanc

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900), needs_orthanc]

ROOT = Path(inference.__file__).parent.parent
RESULT = ROOT / "build" / "benchmarks" / "one_exam.json"
EXAMS, WARM_UP = 24, 4
ROWS, COLUMNS = 2500, 2048
STEPS = ("receive", "screen", "infer", "report", "deliver")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Different phantoms of 10 MB that are not compressed."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{number:02}.dcm" for number in range(EXAMS)]
    for path, exam in zip(paths, phantom_exams(EXAMS, seed=7), strict=True):
        write_radiograph(path, exam, rows=ROWS, columns=COLUMNS)
    return paths


def send_one_by_one(node: Node, files: list[Path]) -> list[tuple[float, float]]:
    """When the first byte of each C-STORE left, and when its answer had come."""
    moments = []
    for number, path in enumerate(files, 1):
        identity, data_set = read_identity(path), data_set_bytes(path)
        station = Modality(node.peer.port, "DX")
        begun = time.time()
        status = station.store(identity.sop_class_uid, identity.sop_instance_uid, data_set)
        moments.append((begun, time.time()))
        assert status == 0
        station.release()
        wait_until(lambda: node.log().count('"stage": "deliver"') == number, seconds=60)  # noqa: B023
        time.sleep(0.3)
    return moments


def steps(node: Node, moments: list[tuple[float, float]]) -> Iterator[dict[str, float]]:
    """For each exam what every step took from the end of the one before, waiting included, and all
    of it together, in ms."""
    lines = [json.loads(line) for line in node.log().splitlines()]
    done = {
        (line["exam_id"], line["stage"]): datetime.fromisoformat(line["at"]).timestamp()
        for line in lines
        if line["event"] == "job_done"
    }
    for exam, (begun, answered) in enumerate(moments, 1):
        ends = [answered, *(done[exam, step] for step in STEPS[1:])]
        begins = [begun, *ends]
        found = {
            step: (end - begin) * 1000
            for step, begin, end in zip(STEPS, begins, ends, strict=False)
        }
        yield found | {"together": (ends[-1] - begun) * 1000}


def floors(files: list[Path], folder: Path, orthanc: Orthanc) -> dict[str, float]:
    """Median time of the bare work of each step, in ms."""
    commit = transaction(folder / "bare.sqlite")
    networks = bare_networks(files[0])
    deliver = bare_delivery(orthanc)
    work: Mapping[str, Sequence[Callable[[Path], object]]] = {
        "receive": [lambda path: received(path, folder / "received")],
        "screen": [lambda path: hashlib.sha256(path.read_bytes()).digest()],
        "infer": [shrunk, networks],
        "report": [],
        "deliver": [deliver, deliver],
    }
    taken: dict[str, list[float]] = {step: [] for step in work}
    for path in files:
        for step, run in work.items():
            begun = time.perf_counter()
            for part in run:
                part(path)
            commit()
            taken[step].append((time.perf_counter() - begun) * 1000)
    return {step: median(times) for step, times in taken.items()}


def transaction(path: Path) -> Callable[[], None]:
    """One row in a ledger's way: WAL, synced."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (x)"
    )

    def commit() -> None:
        database.execute("INSERT INTO t VALUES (zeroblob(4000))")

    return commit


def received(path: Path, target: Path) -> None:
    """The file through a local socket to another one, synced."""
    sender, receiver = socket.socketpair()

    def send() -> None:
        with sender:
            sender.sendall(path.read_bytes())

    thread = threading.Thread(target=send)
    thread.start()
    buffer = memoryview(bytearray(1 << 20))
    with receiver, target.open("wb") as file:
        while count := receiver.recv_into(buffer):
            file.write(buffer[:count])
        os.fdatasync(file.fileno())
    thread.join()


def shrunk(path: Path) -> Any:
    """The pixels at the size that the networks look at."""
    pixels = np.frombuffer(path.read_bytes()[-2 * ROWS * COLUMNS :], np.uint16)
    image = Image.fromarray(pixels.reshape(ROWS, COLUMNS).astype(np.float32))
    return image.resize((STORED_SIDE, STORED_SIDE), Image.Resampling.BILINEAR)


def bare_networks(path: Path) -> Callable[[Path], None]:
    """Both networks, each time on another image."""
    bundle = find_bundle(ROOT / "config" / "models", "boneage-lite0")
    predictor = load_predictor(bundle, device="cpu")
    stored = np.asarray(shrunk(path))
    side = predictor.bundle.side
    random = np.random.default_rng(0)

    def run(_: Path) -> None:
        image = random.integers(0, 255, (1, 1, side, side)).astype(np.uint8)
        predictor._gate.look(stored)
        predictor._engine.run(image, np.ones((1, 1), np.float32))

    return run


def bare_delivery(orthanc: Orthanc) -> Callable[[Path], object]:
    """One of the stored reports again, under another UID, on an open association."""
    [*_, instance] = [i for i in orthanc.get("/instances?expand") if modality(i, orthanc) == "SR"]
    encoded = orthanc.get_bytes(f"/instances/{instance['ID']}/file")
    dataset = dcmread(BytesIO(encoded))
    pair = (str(dataset.SOPClassUID), ExplicitVRLittleEndian)
    association = open_association(
        peer_at(orthanc.dicom_port), contexts_for([pair]), calling_ae_title="BARE",
        timeout_seconds=30.0,
    )  # fmt: skip

    def send(_: Path) -> object:
        dataset.SOPInstanceUID = f"2.25.{time.time_ns()}"
        return association.send_c_store(dataset)

    return send


def modality(instance: dict[str, Any], orthanc: Orthanc) -> str:
    return str(orthanc.get(f"/series/{instance['ParentSeries']}")["MainDicomTags"]["Modality"])


def test_where_the_time_of_an_idle_exam_goes(files: list[Path], tmp_path: Path) -> None:
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        write_config(
            tmp_path / "node",
            [("orthanc", "ORTHANC", orthanc.dicom_port)],
            extra='[inference]\ndevice = "cpu"\n',
        )
        with running_node(tmp_path / "node") as node:
            moments = send_one_by_one(node, files)
        found = list(steps(node, moments))[WARM_UP:]
        least = floors(files[WARM_UP:], tmp_path, orthanc)
    least["together"] = sum(least.values())

    table = Table("step", "median, ms", "P95, ms", "floor, ms", "P95 / floor")
    figures = {}
    for step in (*STEPS, "together"):
        times = sorted(exam[step] for exam in found)
        high = times[int(len(times) * 0.95)]
        figures[step] = {"median": median(times), "p95": high, "floor": least[step]}
        table.add_row(
            step, f"{median(times):.1f}", f"{high:.1f}", f"{least[step]:.1f}",
            f"{high / least[step]:.1f}",
        )  # fmt: skip
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    assert figures["together"]["median"] < 5 * least["together"]
