"""How fast the node receives: its own receiving process, which makes each object durable before it
answers, beside DCMTK's storescp and Orthanc, which do not or hardly.

`make bench` runs it and writes `build/benchmarks/receiving.json`. One round sends the same load to
each receiver in turn; figures are medians over the rounds, and ratios are of these.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
)
from rich.console import Console
from rich.table import Table

import inference
from dicom_node.durable import sync_folder
from tests.builders.dicom_files import data_set_bytes, hand_dataset, write_file
from tests.builders.pdus import association_request
from tests.integration.peers import running_storescp, wait_until
from tests.peers.orthanc import PROGRAM as ORTHANC
from tests.peers.orthanc import running_orthanc
from tests.peers.pdu_sender import Order, Template, placeholder_uid
from tests.peers.receiver import running_receivers

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

RESULT = Path(inference.__file__).parent.parent / "build" / "benchmarks" / "receiving.json"
ROUNDS = int(os.environ.get("RECEIVING_ROUNDS", "5"))
PLACES = "max_associations = 120\nmax_associations_per_peer = 120"
TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 10
_LONGEST_PDU = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Load:
    """``images``: for so many associations, how many images over each."""

    name: str
    pixel_bytes: int
    syntax: UID
    images: dict[int, int]


LOADS = (
    Load(
        name="10 MB",
        pixel_bytes=10_000_000,
        syntax=ExplicitVRLittleEndian,
        images={1: 12, 4: 10, 16: 6, 100: 1},
    ),
    Load(
        name="1.5 MB, compressed",
        pixel_bytes=1_500_000,
        syntax=JPEG2000Lossless,
        images={1: 40, 4: 20, 16: 10, 100: 3},
    ),
    Load(
        name="100 kB",
        pixel_bytes=100_352,
        syntax=ExplicitVRLittleEndian,
        images={1: 100, 4: 50, 16: 25, 100: 8},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """Something that stores; ``kept``: its folder of objects, emptied after each load."""

    port: int
    ae_title: str
    pids: list[int]
    kept: Callable[[], None]


def image(folder: Path, load: Load) -> Template:
    """A DX image of noise: nothing of it can be compressed or be like another."""
    pixels = random.Random(load.name).randbytes(load.pixel_bytes)
    dataset: Dataset = hand_dataset(
        SOPClassUID=DigitalXRayImageStorageForPresentation, SOPInstanceUID=placeholder_uid()
    )
    if load.syntax.is_encapsulated:
        dataset.PixelData = encapsulate([pixels])
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.Rows, dataset.Columns = load.pixel_bytes // 448, 224
        dataset.PixelData = pixels
    path = write_file(folder / "source.dcm", dataset, transfer_syntax_uid=load.syntax)
    encoded = folder / f"{load.pixel_bytes}.dataset"
    encoded.write_bytes(data_set_bytes(path))
    return Template(
        sop_class_uid=str(dataset.SOPClassUID),
        transfer_syntax_uid=str(load.syntax),
        uid=placeholder_uid(),
        data_set=encoded,
    )


def emptied(folder: Path) -> Callable[[], None]:
    """Deletes the files in a folder and keeps its folders."""

    def empty() -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                path.unlink()

    return empty


@contextmanager
def node(folder: Path, *, processes: int = 1, receive: str = "") -> Iterator[Receiver]:
    with running_receivers(folder, processes=processes, receive=f"{PLACES}\n{receive}") as running:
        yield Receiver(
            port=running.port,
            ae_title="BONEAGE",
            pids=running.pids,
            kept=emptied(running.data / "spool" / "objects"),
        )


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    before = children(os.getpid())
    with running_storescp(folder, "--fork", "+xa", "-pdu", "131072") as port:
        yield Receiver(
            port=port,
            ae_title="ANY",
            pids=sorted(children(os.getpid()) - before),
            kept=emptied(folder),
        )


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    before = children(os.getpid())
    with running_orthanc(folder) as running:

        def empty() -> None:
            for study in running.get("/studies"):
                running.delete(f"/studies/{study}")

        yield Receiver(
            port=running.dicom_port,
            ae_title=running.ae_title,
            pids=sorted(children(os.getpid()) - before),
            kept=empty,
        )


def children(pid: int) -> set[int]:
    """Process ids."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes and of all their children, once these have ended; storescp waits for
    its own only when the next association comes."""
    ended = [child for pid in pids for child in children(pid)]
    wait_until(lambda: all(stat(child)[0] == "Z" for child in ended), seconds=60)
    total = sum(int(stat(pid)[at]) for pid in (*pids, *ended) for at in (11, 12))
    waited_for = sum(int(stat(pid)[at]) for pid in pids for at in (13, 14))
    return (total + waited_for) / TICKS


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, then numbers (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident_mb(pids: list[int]) -> float:
    """The largest of the processes, at its peak."""
    peaks = []
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
    return max(peaks)


def send(order: Order) -> dict[str, Any]:
    """What the sender, a process of its own, says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers.pdu_sender"],
        input=json.dumps(asdict(order), default=str),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=RESULT.parent.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Bench:
    """Loads sent to receivers, and what was measured."""

    def __init__(self, receivers: dict[str, Receiver]) -> None:
        self.receivers = receivers
        self._numbers = itertools.count(1)
        self.rates: dict[tuple[str, int, str], list[float]] = {}
        self.cpu_ms: dict[tuple[str, int, str], list[float]] = {}

    def measure(self, name: str, load: Load, template: Template, associations: int) -> None:
        """One load for one receiver, on a disk that has nothing else to write."""
        receiver, images = self.receivers[name], load.images[associations]
        count = associations * images
        first = next(self._numbers) * 1_000_000
        os.sync()
        used = cpu_seconds(receiver.pids)
        sent = send(
            Order(
                port=receiver.port,
                ae_title=receiver.ae_title,
                associations=associations,
                images=images,
                first=first,
                max_pdu_bytes=_LONGEST_PDU,
                template=template,
            )
        )
        used = cpu_seconds(receiver.pids) - used
        assert sent["statuses"] == {"0": count}, (name, sent)
        key = (load.name, associations, name)
        self.rates.setdefault(key, []).append(count / sent["seconds"])
        self.cpu_ms.setdefault(key, []).append(1000 * used / count)
        receiver.kept()

    def rows(self) -> list[dict[str, Any]]:
        """Medians."""
        rows = []
        for load, associations in dict.fromkeys(key[:2] for key in self.rates):
            row: dict[str, Any] = {"images": load, "associations": associations}
            for name in self.receivers:
                row[f"{name}, images/s"] = round(median(self.rates[load, associations, name]), 1)
            for name in self.receivers:
                row[f"{name}, CPU ms"] = round(median(self.cpu_ms[load, associations, name]), 1)
            rows.append(row)
        return rows


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=220).print(table)


def keep(name: str, figures: object) -> None:
    """Enter the figures into the result file, which several tests share."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(known | {name: figures}, indent=2) + "\n", encoding="utf-8")


def test_receiving_side_by_side(tmp_path: Path) -> None:
    with ExitStack() as stack:
        receivers = {
            "node": stack.enter_context(node(tmp_path / "node", processes=2)),
            "one receiver": stack.enter_context(node(tmp_path / "one")),
            "storescp": stack.enter_context(storescp(tmp_path / "storescp")),
        }
        if ORTHANC.exists():
            receivers["Orthanc"] = stack.enter_context(orthanc(tmp_path / "orthanc"))
        bench = Bench(receivers)
        templates = {load.name: image(tmp_path, load) for load in LOADS}
        for _ in range(ROUNDS):
            for load in LOADS:
                for associations in load.images:
                    for name in receivers:
                        bench.measure(name, load, templates[load.name], associations)
        peak = resident_mb(receivers["node"].pids)
    rows = bench.rows()
    show(rows)
    keep("side by side", rows)
    keep("peak resident memory of the node's receiver, MiB", round(peak))


def test_how_far_the_disk_alone_is(tmp_path: Path) -> None:
    """Two receivers at 16 associations, and as many threads that do nothing but make files of the
    same size durable."""
    rows = []
    with node(tmp_path / "node", processes=2) as receiver:
        bench = Bench({"node": receiver})
        for load in LOADS:
            template, alone = image(tmp_path, load), []
            for _ in range(ROUNDS):
                bench.measure("node", load, template, 16)
                alone.append(files_per_second(tmp_path, load.pixel_bytes, 16, load.images[16]))
            node_rate = bench.rows()[-1]["node, images/s"]
            disk_rate = round(median(alone), 1)
            rows.append(
                {
                    "images": load.name,
                    "node, images/s": node_rate,
                    "disk alone, files/s": disk_rate,
                    "ratio": round(node_rate / disk_rate, 2),
                }
            )
    show(rows)
    keep("the disk alone, 16 at once", rows)


def files_per_second(folder: Path, size: int, threads: int, each: int) -> float:
    """Write, sync, rename and sync the folder, in so many threads."""
    content, kept = random.Random(size).randbytes(size), folder / "kept"

    def write(thread: int) -> None:
        for number in range(each):
            partial = folder / f"{thread}-{number}.partial"
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(kept / partial.stem)
            sync_folder(kept)

    kept.mkdir()
    os.sync()
    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(threads)))
    rate = threads * each / (time.monotonic() - begun)
    shutil.rmtree(kept)
    return rate


def test_idle_associations_cost_almost_nothing(tmp_path: Path) -> None:
    """A hundred that are open and say nothing, in percent of one core."""
    used = {}
    with ExitStack() as stack:
        for name in ("fast", "plain"):
            path = f"fast_path = {str(name == 'fast').lower()}"
            receiver = stack.enter_context(node(tmp_path / name, receive=path))
            for _ in range(100):
                peer = stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
                peer.sendall(association_request())
                assert peer.recv(4096)[0] == 0x02
            used[name] = idle_percent(receiver.pids)
    keep("a hundred idle associations, percent of a core", used)
    Console().print(used)
    assert used["fast"] < 15


def idle_percent(pids: list[int]) -> float:
    before, begun = cpu_seconds(pids), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return round(100 * (cpu_seconds(pids) - before) / (time.monotonic() - begun), 1)
