"""The audit trail on a real disk: numbered by many processes, whole after kill -9, kept when a file
cannot be written, and never in the way of who records."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node import metrics
from dicom_node.adapters.audit import (
    AuditFolders,
    AuditForwarder,
    DiskTrail,
    LogFiles,
    read_entries,
    trail,
    waiting,
)
from dicom_node.adapters.audit.arrivals import Arrivals
from dicom_node.adapters.audit.witness import ReceiverWitness
from dicom_node.domain import audit
from dicom_node.domain.audit import Arrival
from tests.builders.audit import (
    AT,
    CHILD,
    CR,
    NODE,
    ORIGIN,
    PERSON,
    XRAY,
    every_kind,
    schema_errors,
    xml_of,
)
from tests.builders.dicom_files import hand_dataset, write_file
from tests.fakes.clock import ManualClock
from tests.integration.peers import file_system, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDING = """
import sys
from pathlib import Path
from dicom_node.adapters.audit import AuditFolders, DiskTrail
from tests.builders.audit import ORIGIN, every_kind
trail = DiskTrail(AuditFolders(root=Path(sys.argv[1])), ORIGIN)
while True:
    for message in every_kind().values():
        trail.record(message)
"""


@pytest.fixture
def folders(tmp_path: Path) -> AuditFolders:
    return AuditFolders(root=tmp_path / "audit")


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    counted: list[None] = []
    monkeypatch.setattr(metrics, "audit_failed", lambda: counted.append(None))
    return counted


def recording(folders: AuditFolders) -> DiskTrail:
    return DiskTrail(folders, ORIGIN)


def numbers(folders: AuditFolders) -> list[int]:
    return [entry.sequence for entry in read_entries(folders)]


def start_recorder(folders: AuditFolders) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RECORDING, str(folders.root)], cwd=REPOSITORY)


def test_a_recorded_message_is_a_file_that_only_the_node_reads(folders: AuditFolders) -> None:
    assert recording(folders).record(every_kind()["sent"])
    [file] = waiting(folders)
    assert file.name == "0000000001.msg"
    assert file.stat().st_mode & 0o777 == 0o600
    assert folders.queue.stat().st_mode & 0o777 == 0o700
    assert schema_errors(xml_of(file.read_bytes())) == []
    assert [path.name for path in folders.queue.iterdir()] == [file.name]


def test_processes_that_record_at_once_number_without_gaps(folders: AuditFolders) -> None:
    processes = [start_recorder(folders) for _ in range(3)]
    wait_until(lambda: len(waiting(folders)) >= 60)
    for process in processes:
        process.kill()
        process.wait()
    found = [int(path.stem) for path in waiting(folders)]
    assert _gaps(found) <= 3, "one for each process that died"


def _gaps(found: list[int]) -> int:
    return found[-1] - len(found)


def test_kill_9_leaves_no_half_message(folders: AuditFolders) -> None:
    for turn in range(1, 6):
        process = start_recorder(folders)
        wait_until(lambda goal=20 * turn: len(waiting(folders)) >= goal)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
    files = waiting(folders)
    assert all(schema_errors(xml_of(path.read_bytes())) == [] for path in files)
    assert _gaps([int(path.stem) for path in files]) <= 5, "one for each process that died"
    assert AuditForwarder(folders, LogFiles(folders.root)).forward()
    assert numbers(folders) == [int(path.stem) for path in files]


def test_a_day_is_a_file_with_a_line_for_each_message(folders: AuditFolders) -> None:
    record = recording(folders).record
    for at in (AT, AT + timedelta(seconds=1), AT + timedelta(days=1)):
        assert record(audit.started(NODE, PERSON, at))
    forwarder = AuditForwarder(folders, LogFiles(folders.root))
    assert forwarder.forward()
    assert waiting(folders) == []
    files = sorted(folders.root.glob("*.log"))
    assert [path.name for path in files] == ["2026-03-02.log", "2026-03-03.log"]
    assert [path.read_bytes().count(b"\n") for path in files] == [2, 1]
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert numbers(folders) == [1, 2, 3]


def test_after_a_crash_half_a_line_is_cut_off_and_nothing_stands_twice(
    folders: AuditFolders,
) -> None:
    record = recording(folders).record
    for _ in range(3):
        record(audit.started(NODE, PERSON, AT))
    first, second, third = [path.read_bytes() for path in waiting(folders)]
    log = folders.root / "2026-03-02.log"
    log.write_bytes(first + b"\n" + second + b"\n" + third[:100])
    assert AuditForwarder(folders, LogFiles(folders.root)).forward()
    assert log.read_bytes() == b"".join(line + b"\n" for line in (first, second, third))


def test_a_file_of_half_a_line_begins_anew(folders: AuditFolders) -> None:
    recording(folders).record(audit.started(NODE, PERSON, AT))
    log = folders.root / "2026-03-02.log"
    log.write_bytes(b"x" * 200_000)
    assert AuditForwarder(folders, LogFiles(folders.root)).forward()
    assert numbers(folders) == [1]
    assert log.read_bytes().startswith(b"<85>1 ")


def test_a_line_that_the_disk_damaged_holds_nothing_up(folders: AuditFolders) -> None:
    recording(folders).record(audit.started(NODE, PERSON, AT))
    (folders.queue / "0000000000.msg").write_bytes(b"")
    assert AuditForwarder(folders, LogFiles(folders.root)).forward()
    assert numbers(folders) == [1]


def test_a_lost_number_is_found_in_what_waits(folders: AuditFolders) -> None:
    record = recording(folders).record
    record(every_kind()["start"])
    folders.sequence.write_text("damaged")
    assert record(every_kind()["stop"])
    assert numbers(folders) == [1, 2]


def test_after_the_last_number_comes_the_first(folders: AuditFolders) -> None:
    folders.root.mkdir()
    folders.sequence.write_text("2147483647\n")
    recording(folders).record(every_kind()["start"])
    assert numbers(folders) == [1]


def test_a_full_disk_loses_the_message_loudly_and_leaves_a_gap(
    tmp_path: Path, failures: list[None]
) -> None:
    with file_system(tmp_path / "full", "size=64k") as disk:
        folders = AuditFolders(root=disk / "audit")
        record = recording(folders).record
        assert record(every_kind()["start"])
        filler = disk / "filler"
        fill(filler)
        assert not record(every_kind()["sent"])
        assert failures == [None]
        filler.unlink()
        assert record(every_kind()["stop"])
        assert numbers(folders) == [1, 3]
        assert len(list(folders.queue.iterdir())) == 2


def test_what_the_file_does_not_take_waits(tmp_path: Path, folders: AuditFolders) -> None:
    recording(folders).record(audit.started(NODE, PERSON, AT))
    with file_system(tmp_path / "read_only", "size=64k,ro") as disk:
        forwarder = AuditForwarder(folders, LogFiles(disk))
        assert not forwarder.forward()
        assert len(waiting(folders)) == 1
    assert AuditForwarder(folders, LogFiles(folders.root)).forward()
    assert numbers(folders) == [1]


def test_a_process_that_was_stopped_while_it_records_stops_nobody_for_long(
    folders: AuditFolders, failures: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "_LOCK_SECONDS", 0.05)
    record = recording(folders).record
    assert record(every_kind()["start"])
    held = os.open(folders.sequence, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert not record(every_kind()["stop"])
    assert failures == [None]
    os.close(held)
    assert record(every_kind()["stop"])


def fill(filler: Path) -> None:
    """Leave no room on the filler's file system."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A received object."""
    dataset = hand_dataset(StudyInstanceUID="1.2.3", PatientID="4711")
    return write_file(tmp_path / "kept.dcm", dataset)


def witness(folders: AuditFolders, kept: Path, name: str = "receiver-0") -> ReceiverWitness:
    return ReceiverWitness(
        recording(folders),
        folders.arriving / name,
        kept=lambda content_sha256: kept.with_name(f"{content_sha256}.dcm"),
        application=NODE,
        clock=ManualClock(),
    )


def arrive(seen: ReceiverWitness, association: object, *, refused: Path | None = None) -> None:
    content_sha256 = None if refused else "kept"
    seen.arrived(association, XRAY, CR, content_sha256=content_sha256, refused=refused)


def test_what_an_association_brought_is_one_message_when_it_has_ended(
    folders: AuditFolders, kept: Path
) -> None:
    seen, one, other = witness(folders, kept), object(), object()
    for _ in range(3):
        arrive(seen, one)
    arrive(seen, other)
    assert waiting(folders) == []
    seen.ended(one)
    seen.ended(one)
    seen.ended(object())
    [entry] = read_entries(folders)
    assert entry.what == ("Study Instance UID 1.2.3", "instances: 3", "Patient Number 4711")
    assert len(list((folders.arriving / "receiver-0").iterdir())) == 1


def test_whose_a_refused_object_was_is_read_before_it_is_gone(
    folders: AuditFolders, kept: Path, tmp_path: Path
) -> None:
    seen = witness(folders, kept)
    arrive(seen, "association", refused=kept)
    arrive(seen, "association", refused=tmp_path / "gone.dcm")
    kept.unlink()
    arrive(seen, "association")
    seen.ended("association")
    refused, unreadable, gone = read_entries(folders)
    assert refused.what[0] == "Study Instance UID 1.2.3"
    assert (refused.outcome, unreadable.outcome, gone.outcome) == ("4", "4", "0")
    assert (len(unreadable.what), gone.what) == (1, ())


def test_a_receiver_that_died_takes_no_message_with_it(
    folders: AuditFolders, kept: Path, failures: list[None]
) -> None:
    dying = witness(folders, kept)
    arrive(dying, "association")
    [notes] = (folders.arriving / "receiver-0").iterdir()
    with notes.open("ab") as file:
        file.write(b'{"ae_title": "XR\xff')
    witness(folders, kept, "receiver-1")
    assert read_entries(folders) == [], "of another one, which lives"
    witness(folders, kept)
    [entry] = read_entries(folders)
    assert "instances: 1" in entry.what
    assert len(failures) == 1, "the half line is told"
    assert not notes.exists()


def test_arrivals_that_could_not_be_recorded_are_kept(folders: AuditFolders) -> None:
    told: list[list[Arrival]] = []

    def refusing(arrivals: list[Arrival]) -> bool:
        told.append(arrivals)
        return len(told) > 1

    def notes() -> Arrivals:
        folder = folders.arriving / "receiver-0"
        return Arrivals(folder, whose=lambda _: CHILD, transferred=refusing)

    first = notes()
    association = first.begin()
    first.kept(association, XRAY, CR, "kept")
    first.end(association)
    notes().recover()
    assert told[0] == told[1] == [Arrival(peer=XRAY, subject=CHILD, sop_class_uid=CR, stored=True)]
    assert not association.exists()


def test_notes_on_a_disk_that_fails_stop_no_association(
    tmp_path: Path, kept: Path, failures: list[None]
) -> None:
    with file_system(tmp_path / "read_only", "size=64k,ro") as disk:
        seen = witness(AuditFolders(root=disk / "audit"), kept)
        arrive(seen, "association")
        seen.ended("association")
    assert len(failures) == 1


def test_messages_since_a_time(folders: AuditFolders) -> None:
    record = recording(folders).record
    for day in range(3):
        record(audit.started(NODE, PERSON, AT + timedelta(days=day)))
    AuditForwarder(folders, LogFiles(folders.root)).forward()
    record(audit.stopped(NODE, PERSON, AT + timedelta(days=3)))
    since = datetime(2026, 3, 4, tzinfo=UTC)
    assert [entry.sequence for entry in read_entries(folders, since=since)] == [3, 4]
