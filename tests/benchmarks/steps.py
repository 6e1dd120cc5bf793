"""The node's steps, each beside a fixed computation of the same kind: what the gate compares."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import generate_uid
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.adapters.reporter import SrReporter
from inference.bundle import load_bundle
from inference.decode import decode
from inference.engines.choice import engine_for
from inference.preprocess import STORED_SIDE, to_stored_size
from tests.benchmarks.test_inference_throughput import BUNDLE, bare_onnx, batches
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.builders.exams import WAY, claim_one, complete, instance
from tests.builders.reports import assessment, radiograph, request_for
from tests.load.modality import Modality

ROUNDS = 9
_SENT = 6
_SIDE = 900
_EXAMS = 4
_STATEMENTS = 3

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Step:
    """``ours`` and ``reference`` do their work once; the clock that counts it. The reference never
    changes, or all that was recorded is void."""

    name: str
    ours: Callable[[], None]
    reference: Callable[[], None]
    clock: Clock


def cost(step: Step, rounds: int = ROUNDS) -> float:
    """How much longer ours takes than the reference: the median over rounds in which both take
    turns."""
    step.ours()
    step.reference()
    ratios = []
    for _ in range(rounds):
        ours, reference = _seconds(step.ours, step.clock), _seconds(step.reference, step.clock)
        ratios.append(ours / reference)
    return median(ratios)


def _seconds(run: Callable[[], None], clock: Clock) -> float:
    begun = clock()
    run()
    return clock() - begun


@contextmanager
def steps(folder: Path) -> Iterator[list[Step]]:
    """All steps, ready to run; what they need lies below ``folder``."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(_receive(folder / "receive")),
            _decode(folder),
            _engine(),
            _report(folder),
            stack.enter_context(_ledger(folder / "ledger")),
        ]


@contextmanager
def _receive(folder: Path) -> Iterator[Step]:
    """C-STOREs to a receiver with spool and ledger; bytes over loopback to a file that is synced,
    and a row."""
    folder.mkdir()
    with _child(RECEIVER, folder / "node") as port, _child(SINK, folder / "sink") as sink:
        plain = socket.create_connection(("127.0.0.1", sink))
        write_file(folder / "hand.dcm", hand_dataset(side_pixels=_SIDE, SOPInstanceUID=_uid(0)))
        template = data_set_bytes(folder / "hand.dcm")
        sop_class = str(dcmread(folder / "hand.dcm").SOPClassUID)
        numbers = count(1)

        def ours() -> None:
            modality = Modality(port, "GATE")
            for _ in range(_SENT):
                uid = _uid(next(numbers))
                content = template.replace(_uid(0).encode(), uid.encode(), 1)
                assert modality.store(sop_class, uid, content) == 0x0000
            modality.release()

        def reference() -> None:
            for _ in range(_SENT):
                plain.sendall(struct.pack("<L", len(template)) + template)
                assert plain.recv(1) == b"k"

        yield Step(name="receive", ours=ours, reference=reference, clock=time.perf_counter)
        plain.close()


_ROOT = generate_uid(prefix="2.25.")[:30]


def _uid(number: int) -> str:
    return f"{_ROOT}{number + 10**9}"


RECEIVER = """
import sys, threading
from pathlib import Path
from tests.integration.peers import running_receiver
with running_receiver(Path(sys.argv[1])) as running:
    print(running.receiver.bound_port, flush=True)
    threading.Event().wait()
"""
SINK = """
import sys
from pathlib import Path
from tests.benchmarks.steps import sink
sink(Path(sys.argv[1]))
"""


@contextmanager
def _child(program: str, folder: Path) -> Iterator[int]:
    """A program in a process of its own that prints its port."""
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            yield int(running.stdout.readline())
        finally:
            running.kill()


def sink(folder: Path) -> None:
    """Take objects from one connection: each is synced in a file, and named in a row."""
    folder.mkdir()
    rows = _plain_database(folder / "rows.sqlite")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201  for its parent
        connection, _ = listening.accept()
    for number in count():
        head = connection.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return
        path = folder / f"{number}.part"
        _write(connection, struct.unpack("<L", head)[0], path)
        path.rename(folder / f"{number}.dcm")
        _sync_folder(folder)
        _transaction(rows)
        connection.sendall(b"k")


def _write(connection: socket.socket, size: int, path: Path) -> None:
    with path.open("wb") as file:
        while size:
            chunk = connection.recv(min(size, 131_072))
            file.write(chunk)
            size -= len(chunk)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _decode(folder: Path) -> Step:
    """A plain image of 4 megapixels to 299 x 299; numpy and Pillow with the pixels at hand."""
    side = 2000
    path = write_file(folder / "plain.dcm", hand_dataset(side_pixels=side))
    pixels = dcmread(path).PixelData

    def ours() -> None:
        to_stored_size(decode(path))

    def reference() -> None:
        grey = np.frombuffer(pixels, np.uint16).reshape(side, side).astype(np.float32)
        small = Image.fromarray(grey).resize((STORED_SIDE,) * 2, Image.Resampling.BILINEAR)
        np.asarray(small)

    return Step(name="decode", ours=ours, reference=reference, clock=time.process_time)


def _engine() -> Step:
    """The engine of the node; ``session.run`` on the same images."""
    bundle = load_bundle(BUNDLE)
    engine = engine_for(
        bundle, device="cpu", precision="auto", batch_max=1, on_event=lambda _event: None
    )
    bare = bare_onnx(bundle)
    work = batches(1, bundle.side)
    fresh = count()

    def ours() -> None:
        images, male = work[0]
        images = images.copy()
        images.view(np.uint32).flat[0] = next(fresh)  # nothing that it remembers
        engine.run(images, male)

    def reference() -> None:
        bare(*work[0])

    return Step(name="engine", ours=ours, reference=reference, clock=time.process_time)


def _report(folder: Path) -> Step:
    """Both Structured Reports of an exam; pydicom reads and writes the same documents."""
    request = request_for(folder / "received.dcm", radiograph(), assessment())
    reporter = SrReporter()
    documents = [made.encoded for made in reporter.build(request)]
    numbers = count()

    def ours() -> None:
        reporter.build(replace(request, content_sha256=f"{next(numbers):064x}"))

    def reference() -> None:
        for encoded in documents:
            dataset = dcmread(BytesIO(encoded))
            _touch(dataset)
            dcmwrite(BytesIO(), dataset, enforce_file_format=True)

    return Step(name="report", ours=ours, reference=reference, clock=time.process_time)


def _touch(dataset: Dataset) -> None:
    for element in dataset.iterall():
        _ = element.value


@contextmanager
def _ledger(folder: Path) -> Iterator[Step]:
    """All transactions of an exam; as many plain ones through SQLAlchemy. In CPU time: the disk
    makes both wait alike, and others make the one wait longer that works more."""
    folder.mkdir()
    migrate(folder / "ledger.sqlite")
    ledger = SqlLedger(folder / "ledger.sqlite", SystemClock())
    engine = create_engine(f"sqlite:///{folder / 'rows.sqlite'}")
    metadata = MetaData()
    rows = Table("rows", metadata, Column("id", Integer, primary_key=True), Column("what", String))
    metadata.create_all(engine)
    numbers = count(1)

    def ours() -> None:
        for _ in range(_EXAMS):
            ledger.record_instance(instance(next(numbers)))
            for stage in WAY:
                complete(ledger, claim_one(ledger, stage))

    def reference() -> None:
        for _ in range(_EXAMS * (1 + 2 * len(WAY))):
            with engine.begin() as connection:
                for _ in range(_STATEMENTS):
                    connection.execute(insert(rows).values(what="x" * 100))

    yield Step(name="ledger", ours=ours, reference=reference, clock=time.process_time)
    ledger.close()
    engine.dispose()


def _plain_database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, what TEXT)")
    return connection


def _transaction(rows: sqlite3.Connection) -> None:
    rows.execute("BEGIN IMMEDIATE")
    rows.execute("INSERT INTO rows (what) VALUES (?)", ("x" * 100,))
    rows.execute("COMMIT")
