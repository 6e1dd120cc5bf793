"""The power goes, at any moment: what was answered with 0x0000 is there, with its row and its job.

A node's receiver runs on a file system that records every change and every sync. What the disk
would hold, had the power gone after any of them, follows from the record: nothing that was not
synced, or a part of it by chance. On that, a node is prepared as at a start.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from pydicom import dcmread

from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import Outcome
from dicom_node.preparation import prepare
from dicom_node.settings import NodeSettings, Settings
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.builders.radiographs import radiograph_files
from tests.faults.power_cut_disk import Change, Disk, Synced, Tree, changes_of, write_tree
from tests.faults.power_cut_mount import PowerCutFileSystem, power_cut_file_system
from tests.integration.peers import dcmtk, file_system, running_storescp, wait_until
from tests.peers.node import Node, start_node, write_config

_SENDER = "MODALITY"
_OBJECTS = 40
_SENDERS = 3
_RANDOM_CUTS = 40
_SEED = 4
RECEIVER = """
import socket, sys
from pathlib import Path
from dicom_node import metrics
from dicom_node.adapters.bell import EventBell
from dicom_node.preparation import prepare
from dicom_node.processes import Inherited, Role, run_process
from dicom_node.settings import load_settings
from dicom_node.folders import Folders

settings = load_settings(Path(sys.argv[1]))
prepare(settings)
prepared = EventBell()
prepared.ring()
metrics.clear(Folders(root=settings.node.data_dir).metrics)
listening, lifeline = int(sys.argv[2]), int(sys.argv[3])
inherited = Inherited(
    listening=listening, listening_tls=-1, work_bell=EventBell().descriptor,
    delivery_bell=EventBell().descriptor, lifeline=lifeline, lock=-1,
    prepared=prepared.descriptor,
)
run_process(settings, Role.RECEIVER, "receiver-0", inherited)
"""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An object that was answered with 0x0000, and how many changes had come by then."""

    sop_instance_uid: str
    content_sha256: str
    changes: int


@dataclass
class Recording:
    """What a receiver did to its disk, and what it promised meanwhile."""

    changes: list[Change] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)

    def answered_by(self, changes: int) -> list[Answered]:
        """What a sender had been promised after so many changes."""
        return [answer for answer in self.answered if answer.changes <= changes]

    def cuts(self, chance: Random, random_cuts: int) -> list[int]:
        """Right after every answer, and anywhere."""
        anywhere = chance.sample(range(len(self.changes) + 1), random_cuts)
        return sorted({*(answer.changes for answer in self.answered), *anywhere})


@contextmanager
def receiver_process(config: Path, data_dir: Path, log: Path) -> Iterator[int]:
    """`prepare` and a receiver as a process of its own; yields its port, drains it at the end."""
    mine, lifeline = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening, mine, lifeline, log.open("ab") as out:
        handed = (listening.fileno(), lifeline.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, str(config), *map(str, handed)],
            pass_fds=handed,
            stderr=out,
        )
        ready = data_dir / "run" / "receiver-0.ready"
        try:
            wait_until(lambda: process.poll() is not None or ready.exists(), seconds=60)
            assert process.poll() is None, log.read_text()
            yield int(listening.getsockname()[1])
            ready.unlink()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def is_answered(port: int, path: Path) -> bool:
    """Whether a file that DCMTK sends is answered with 0x0000."""
    titles = ("-aet", _SENDER, "-aec", "BONEAGE")
    said = dcmtk("storescu", "-v", "-td", "60", *titles, "127.0.0.1", port, path)
    return "Received Store Response (Success)" in said


def send(disk: PowerCutFileSystem, port: int, path: Path) -> Answered:
    """Send a file, and look how far the disk is when the answer has come."""
    assert is_answered(port, path)
    return Answered(
        changes=disk.changes_so_far(),
        sop_instance_uid=sop_instance_uid(path),
        content_sha256=hashlib.sha256(data_set_bytes(path)).hexdigest(),
    )


def sop_instance_uid(path: Path) -> str:
    """(0008,0018)."""
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def record(folder: Path, objects: int) -> Recording:
    """Two starts of a receiver on an empty disk, and several senders at once."""
    files = [write_file(folder / f"{n}.dcm", hand_dataset(side_pixels=48)) for n in range(objects)]
    with power_cut_file_system(folder) as disk:
        data_dir = disk.mountpoint / "data"
        config, log = write_config(folder / "node", [], data_dir=data_dir), folder / "node.log"
        recording = Recording()
        for half in (files[: objects // 2], files[objects // 2 :]):
            with (
                receiver_process(config, data_dir, log) as port,
                ThreadPoolExecutor(_SENDERS) as senders,
            ):
                recording.answered += senders.map(partial(send, disk, port), half)
        recording.changes = disk.record(folder)
    return recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("recorded"), _OBJECTS)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / "memory", "size=500m") as folder:
        yield folder


Sabotage = Callable[[Synced], bool]
"""Which syncs do nothing."""


def disks(
    recording: Recording, cuts: Sequence[int], sabotage: Sabotage | None = None
) -> Iterator[tuple[int, Disk]]:
    """The disk after so many changes, for rising numbers of them."""
    disk, done = Disk(), 0
    for cut in cuts:
        for change in recording.changes[done:cut]:
            if not (sabotage and isinstance(change, Synced) and sabotage(change)):
                disk.apply(change)
        done = cut
        yield cut, disk


def lost(tree: Tree, folder: Path, answered: Sequence[Answered]) -> list[str]:
    """What is wrong with a node that is prepared on what survived; it should be nothing."""
    folder.mkdir()
    write_tree(tree, folder)
    data = folder / "data"
    try:
        prepare(Settings(node=NodeSettings(data_dir=data)))
    except NodeError as error:
        return [f"the node does not start: {error}"]
    spool, wrong = DiskSpool(data / "spool"), []
    with closing(sqlite3.connect(data / "ledger.sqlite")) as ledger:
        if ledger.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            wrong.append("the ledger is damaged")
        kept = set(ledger.execute(_KEPT).fetchall())
    for answer in answered:
        if (answer.sop_instance_uid, answer.content_sha256, _SENDER) not in kept:
            wrong.append(f"no row and job of {answer.sop_instance_uid}")
        try:
            spool.verify(answer.content_sha256)
        except NodeError as error:
            wrong.append(str(error))
    return wrong


_KEPT = """
SELECT sop_instance_uid, content_sha256, calling_ae_title FROM instances
JOIN exams USING (instance_id) JOIN jobs USING (exam_id) WHERE stage = 'screen' AND state = 'queued'
"""
"""An object without a row would get one at the start, but of an unknown sender."""


def check_cuts(recording: Recording, cuts: Sequence[int], folder: Path) -> int:
    """Nothing is lost at any of the cuts, in the worst case and in one by chance; how many."""
    count = 0
    for cut, disk in disks(recording, cuts):
        for chance in (None, Random(cut)):
            count += 1
            node, answered = folder / str(count), recording.answered_by(cut)
            assert lost(disk.after_power_cut(chance), node, answered) == [], f"cut after {cut}"
            shutil.rmtree(node)
    return count


def test_what_was_answered_survives_a_power_cut_at_any_moment(
    recording: Recording, memory: Path
) -> None:
    cuts = recording.cuts(Random(_SEED), _RANDOM_CUTS)
    assert check_cuts(recording, cuts, memory) >= 100


@pytest.mark.powercut
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_at_thousands_of_power_cuts(
    tmp_path: Path, memory: Path, seed: int
) -> None:
    """Enough objects for SQLite to bring its WAL into the ledger between them."""
    recording = record(tmp_path, 300)
    cuts = recording.cuts(Random(seed), 400)
    assert check_cuts(recording, cuts, memory) > 1000


def test_the_power_may_go_again_while_the_node_starts(
    recording: Recording, memory: Path, tmp_path: Path
) -> None:
    cut = recording.answered[-1].changes
    [(_, disk)] = disks(recording, [cut])
    held = disk.after_power_cut()
    with power_cut_file_system(tmp_path, held=held) as second:
        config = write_config(tmp_path / "node", [], data_dir=second.mountpoint / "data")
        with receiver_process(config, second.mountpoint / "data", tmp_path / "node.log"):
            starting = second.record(tmp_path)
    before = changes_of(held)
    answered = [replace(answer, changes=0) for answer in recording.answered]
    again = Recording([*before, *starting], answered)
    cuts = [len(before) + number for number in range(len(starting) + 1)]
    assert check_cuts(again, Random(_SEED).sample(cuts, min(len(cuts), 10)), memory) >= 10


@pytest.mark.parametrize(
    ("sabotage", "found"),
    [
        (lambda sync: "/incoming/" in sync.path, "has changed on the disk"),
        (lambda sync: "/objects/" in sync.path, "is missing from the spool"),
        (lambda sync: sync.path.endswith("-wal"), "no row and job"),
        (lambda sync: sync.path == "/data", "no row and job"),
    ],
    ids=["fsync of the file", "fsync of the folder", "synchronous=FULL", "the ledger's folder"],
)
def test_without_one_of_the_syncs_a_power_cut_loses_objects(
    recording: Recording, memory: Path, sabotage: Sabotage, found: str
) -> None:
    cut = recording.answered[_OBJECTS // 2 - 1].changes
    answered = recording.answered_by(cut)
    [(_, disk)] = disks(recording, [cut], sabotage)
    wrong = lost(disk.after_power_cut(), memory / "node", answered)
    assert sum(found in what for what in wrong) == len(answered), wrong


def test_an_answer_before_its_last_sync_would_be_found(recording: Recording, memory: Path) -> None:
    """The syncs come right before the answer: promised a few changes earlier, it is broken."""
    early = [replace(answer, changes=answer.changes - 10) for answer in recording.answered]
    hasty = Recording(recording.changes, early)
    trees = [(cut, disk.after_power_cut()) for cut, disk in disks(hasty, hasty.cuts(Random(), 0))]
    assert any(lost(tree, memory / str(cut), hasty.answered_by(cut)) for cut, tree in trees)


@pytest.mark.parametrize(
    "after_changes",
    [60, *(pytest.param(number, marks=pytest.mark.powercut) for number in range(20, 420, 40))],
)
def test_a_whole_node_goes_on_after_the_power_was_cut(tmp_path: Path, after_changes: int) -> None:
    files = radiograph_files(tmp_path / "sent", 6)
    with running_storescp(tmp_path / "pacs") as port:
        pacs = [("pacs", "PACS", port)]
        answered, left = sent_until_the_power_goes(tmp_path, files, pacs, after_changes)
        assert len(answered) >= 2
        delivered = {sop_instance_uid(path) for path in (tmp_path / "pacs").iterdir()}
        assert delivered <= reports_in(left, tmp_path / "left")
        with power_cut_file_system(tmp_path / "second", held=left) as disk:
            write_config(tmp_path / "node", pacs, data_dir=disk.mountpoint / "data")
            node = start_node(tmp_path / "node")
            try:
                check_all_reported(node, answered)
                for path in files:
                    assert is_answered(node.note["port"], path)
                made = check_all_reported(node, files)
                assert node.stop() == 0
            finally:
                if node.process.poll() is None:
                    node.kill()
    stored = list((tmp_path / "pacs").iterdir())
    assert {sop_instance_uid(path) for path in stored} == made
    assert len(made) == 2 * len(files)


def reports_in(tree: Tree, folder: Path) -> set[str]:
    """SOP Instance UIDs of the reports in the ledger that survived."""
    folder.mkdir()
    write_tree(tree, folder)
    with closing(sqlite3.connect(folder / "data" / "ledger.sqlite")) as ledger:
        return {uid for [uid] in ledger.execute("SELECT sop_instance_uid FROM reports")}


def sent_until_the_power_goes(
    folder: Path,
    files: Sequence[Path],
    destinations: Sequence[tuple[str, str, int]],
    after_changes: int,
) -> tuple[list[Path], Tree]:
    """What a whole node answered with 0x0000, and what its disk holds after a power cut so many
    changes later than the second answer."""
    with ThreadPoolExecutor(_SENDERS) as senders:
        with power_cut_file_system(folder / "first") as disk:
            write_config(folder / "node", destinations, data_dir=disk.mountpoint / "data")
            node = start_node(folder / "node")
            sent = {path: senders.submit(is_answered, node.note["port"], path) for path in files}
            wait_until(lambda: sum(answer.done() for answer in sent.values()) >= 2, seconds=60)
            disk.cut_power(after_changes=after_changes)
            wait_until(disk.has_no_power, seconds=60)
            kill(node)
            changes = disk.record(folder)
        node.process.wait(30)
        [(_, left)] = disks(Recording(changes), [len(changes)])
        return [path for path in files if sent[path].result()], left.after_power_cut()


def kill(node: Node) -> None:
    """SIGKILL for all of it. It ends when the file system is gone: until then the kernel waits for
    pages of mapped files."""
    for pid in [node.process.pid, *node.children()]:
        os.kill(pid, signal.SIGKILL)


def check_all_reported(node: Node, files: Sequence[Path]) -> set[str]:
    """One exam for each file, assessed, and nothing left to do; the reports' SOP Instance UIDs."""
    node.wait_until_idle(90)
    made = set()
    with closing(node.ledger()) as ledger:
        for path in files:
            [exam_id] = ledger.exam_ids(sop_instance_uid(path))
            details = ledger.exam_details(exam_id)
            assert details.exam.outcome is Outcome.ASSESSED, details
            assert details.reports
            made |= {report.sop_instance_uid for report in details.reports}
    return made
