"""How soon a node answers and reports after its start, what it costs while nothing happens, and its
memory.

`make bench` runs it and writes `build/benchmarks/start.json` and `idle.json`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from tests.benchmarks.results import publish
from tests.integration.peers import free_port, wait_until
from tests.load.films import films
from tests.load.modality import Modality
from tests.load.plant import ARCHIVE, Archive, Plant, resident_mb, running_plant
from tests.load.traffic import Manner, Shot, Traffic
from tests.peers.held import cpu_seconds
from tests.peers.node import Node, begin_node, write_config

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

STARTS = 3
IDLE_SECONDS = 20.0
USERS = 100
FLOORS = {
    "C-ECHO": "import pynetdicom",
    "first report": "import onnxruntime, pynetdicom, highdicom, matplotlib",
}
"""What a process that does nothing but load the libraries runs."""


def echoes(port: int) -> bool:
    with suppress(OSError):
        modality = Modality(port, "START", timeout_seconds=10)
        answered = modality.echo() == 0
        modality.release()
        return answered
    return False


def start(folder: Path) -> dict[str, float]:
    """Seconds from the start of the supervisor."""
    archive = Archive(folder / "archive")
    archive.start()
    port = free_port()
    config = write_config(folder / "node", [("archive", ARCHIVE, archive.port)])
    config.write_text(config.read_text().replace("port = 0", f"port = {port}", 1))
    [film] = films(1)
    begun = time.time()
    node = begin_node(folder / "node")
    try:
        wait_until(lambda: echoes(port), seconds=60)
        echoed = time.time() - begun
        shot = Shot(number=1, film=film, run=time.time_ns(), due=0.0)
        Traffic(port, [("FIRST", [shot])], Manner(patience=60)).run()
        wait_until(lambda: bool(archive.stored_at()), seconds=60)
        node.wait_until_ready()
        node.wait_until_idle(60)
        plant = Plant(node, archive)
        reported = plant.fates()[shot.sop_instance_uid].reported_at
        plant.close()
        assert reported is not None
        return {"C-ECHO": echoed, "first report": reported - begun}
    finally:
        node.stop()
        archive.stop()


def floor(program: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    return time.perf_counter() - begun


def test_the_start(tmp_path: Path) -> None:
    starts = [start(tmp_path / str(number)) for number in range(STARTS)]
    rows = []
    for name, program in FLOORS.items():
        floor(program)
        bare = median(floor(program) for _ in range(STARTS))
        seconds = median(found[name] for found in starts)
        rows.append(
            {
                "from the start to": name,
                "seconds": seconds,
                "an interpreter that loads the libraries, s": bare,
                "ratio of times": seconds / bare,
            }
        )
    publish("start", f"start, medians of {STARTS}", rows, bars="seconds")


def busy_percent(node: Node) -> float:
    """Of one core, by all processes of an idle node together."""
    before, begun = cpu_seconds(node), time.monotonic()
    time.sleep(IDLE_SECONDS)
    after, seconds = cpu_seconds(node), time.monotonic() - begun
    return 100 * sum(spent - before.get(pid, 0.0) for pid, spent in after.items()) / seconds


def test_an_idle_node(tmp_path: Path) -> None:
    with running_plant(tmp_path) as plant:
        port, [film] = plant.node.note["port"], films(1)
        shots = [Shot(number=n, film=film, run=time.time_ns(), due=0.0) for n in range(4)]
        Traffic(port, [("WARM", shots)], Manner()).run()
        plant.node.wait_until_idle(60)
        time.sleep(12)  # associations with the archive are released
        quiet = busy_percent(plant.node)
        users = [Modality(port, f"USER-{n}") for n in range(USERS)]
        time.sleep(2)
        crowded = busy_percent(plant.node)
        memory = resident_mb(plant.node)
        for user in users:
            user.release()
    rows: list[dict[str, object]] = [
        {"an idle node": "all processes, % of a core", "value": quiet},
        {"an idle node": f"the same with {USERS} open associations, % of a core", "value": crowded},
    ]
    rows += [
        {"an idle node": f"memory of {name}, MB", "value": mb}
        for name, mb in sorted(memory.items())
    ]
    publish("idle", f"{IDLE_SECONDS:.0f} s without work", rows, bars="value")
