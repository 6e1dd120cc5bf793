"""What the limits of the acceptor cost an honest sender: pynetdicom's own socket and ours, side by
side.

`make bench` runs it and writes `build/benchmarks/acceptor.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

import inference
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import dcmtk_program

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

REPOSITORY = Path(inference.__file__).parent.parent
RESULT = REPOSITORY / "build" / "benchmarks" / "acceptor.json"
ROUNDS = 7
LOADS = {"10 MB": (2236, 12), "130 kB": (256, 150)}
"""Side in pixels of 16 bit images, and how many of them go over one association."""

SERVER = """
import sys, threading
from pynetdicom import AE, evt
from pynetdicom.transport import RequestHandler
from dicom_node.scp.contexts import supported_contexts
from dicom_node.scp.guard import Limits, WaitingRoom
from dicom_node.scp.listener import Connection, Listener
from dicom_node.scp.port import listen

if sys.argv[1] == "plain":
    Connection._create_association = RequestHandler._create_association

def support(event):
    proposed = event.assoc.requestor.primitive.presentation_context_definition_list
    event.assoc.acceptor.supported_contexts = supported_contexts(proposed)

ae = AE("BONEAGE")
ae.maximum_pdu_size = 256 * 1024
listening = listen("127.0.0.1", 0)
listener = Listener(
    ae, listening, handlers=((evt.EVT_REQUESTED, support), (evt.EVT_C_STORE, lambda _: 0)),
    closed=lambda _: None,
    limits=Limits(pdu_bytes=256 * 1024, message_bytes=512_000_000, pdu_seconds=15),
    waiting_room=WaitingRoom(places=40, places_of_peer=8),
)
listener.start()
print(listening.getsockname()[1], flush=True)
threading.Event().wait()
"""


@contextmanager
def server(kind: str, folder: Path) -> Iterator[int]:
    """A receiver that keeps nothing; its port."""
    folder.mkdir()
    command = [sys.executable, "-c", SERVER, kind]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={"TMPDIR": str(folder), "PATH": "/usr/bin"}
    ) as running:
        assert running.stdout is not None
        try:
            yield int(running.stdout.readline())
        finally:
            running.kill()


def send(port: int, files: list[Path]) -> float:
    """Seconds in which DCMTK has sent all files over one association."""
    command = [dcmtk_program("storescu"), "-aec", "BONEAGE", "-pdu", "131072"]
    begun = time.perf_counter()
    subprocess.run([*command, "127.0.0.1", str(port), *files], check=True)
    return time.perf_counter() - begun


def test_an_honest_sender_is_not_slowed(tmp_path: Path) -> None:
    rows = []
    with ExitStack() as running:
        ports = {
            kind: running.enter_context(server(kind, tmp_path / kind))
            for kind in ("guarded", "plain")
        }
        for name, (side, count) in LOADS.items():
            files = [
                write_file(
                    tmp_path / f"{side}-{n}.dcm",
                    hand_dataset(side_pixels=side, SOPInstanceUID=generate_uid()),
                )
                for n in range(count)
            ]
            seconds: dict[str, list[float]] = {kind: [] for kind in ports}
            for _ in range(ROUNDS):
                for kind, port in ports.items():
                    seconds[kind].append(send(port, files))
            guarded, plain = median(seconds["guarded"]), median(seconds["plain"])
            rows.append(
                {
                    "measured": f"{count} images of {name} over one association",
                    "guarded seconds": round(guarded, 3),
                    "plain seconds": round(plain, 3),
                    "ratio of rates": round(plain / guarded, 2),
                }
            )
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=120).print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    assert min(float(str(row["ratio of rates"])) for row in rows) >= 0.95
