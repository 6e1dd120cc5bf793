"""Ten minutes of everything at once: associations good and bad, echoes, hostile connections. What
the node holds must not grow.

`make soak` runs it; SOAK_SECONDS changes its length. It
writes `build/soak.png` and `build/soak.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console
from rich.progress import track

import inference
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.job import JobState
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import dcmtk, running_storescp
from tests.peers.held import Held, held
from tests.peers.invariants import check_rest
from tests.peers.node import Node, running_node, write_config

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4000)]

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
BUILD = Path(inference.__file__).parent.parent / "build"
PEERS = 6
WARM_SHARE = 0.3
"""Of the time: what processes and libraries take while they warm up is no leak."""


@dataclass(frozen=True)
class Sample:
    """What all processes of a node hold, at a time."""

    seconds: float
    held: Held


def peer(node: Node, folder: Path, stop: threading.Event, chance: random.Random) -> int:
    """One peer's life: what it does next is chance; how many images were acknowledged."""
    port, acknowledged = node.note["port"], 0

    def store() -> None:
        nonlocal acknowledged
        path = write_file(folder / f"{chance.getrandbits(64)}.dcm", hand_dataset(side_pixels=300))
        [sent] = send_files([path], node.peer, calling_ae_title="MODALITY", timeout_seconds=60)
        acknowledged += sent.status == 0
        path.unlink()

    def abort() -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(b"\x01\x00\x00\x00\x00\xcd" + bytes(chance.randrange(205)))

    def talk_nonsense() -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(chance.randbytes(chance.randrange(1, 400)))

    def check_port() -> None:
        socket.create_connection(("127.0.0.1", port), 10).close()

    def echo() -> None:
        dcmtk("echoscu", "-aec", "BONEAGE", "127.0.0.1", port)

    def call_wrongly() -> None:
        dcmtk("echoscu", "-aec", "OTHER", "127.0.0.1", port)

    steps: list[Callable[[], None]] = [store, store, abort, talk_nonsense, check_port, echo]
    steps.append(call_wrongly)
    while not stop.is_set():
        with contextlib.suppress(OSError):
            chance.choice(steps)()
        stop.wait(chance.uniform(0, 0.3))
    return acknowledged


def slope_an_hour(samples: list[Sample], name: str) -> float:
    """Of a line through what was sampled after the warm-up."""
    warm = [s for s in samples if s.seconds > WARM_SHARE * samples[-1].seconds]
    hours = np.array([s.seconds / 3600 for s in warm])
    return float(np.polyfit(hours, [getattr(s.held, name) for s in warm], 1)[0])


def save(samples: list[Sample]) -> None:
    figure, all_axes = plt.subplots(4, 1, figsize=(8, 9), sharex=True, layout="constrained")
    names = ("resident_mb", "threads", "descriptors", "partial_files")
    for axes, name in zip(all_axes, names, strict=True):
        axes.plot([s.seconds for s in samples], [getattr(s.held, name) for s in samples])
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    all_axes[-1].set_xlabel("seconds")
    BUILD.mkdir(exist_ok=True)
    figure.savefig(BUILD / "soak.png")
    plt.close(figure)


def test_what_the_node_holds_does_not_grow(tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    with running_storescp(tmp_path / "pacs") as port:
        write_config(tmp_path / "node", [("pacs", "PACS", port)])
        with running_node(tmp_path / "node") as node, ThreadPoolExecutor(PEERS) as pool:
            stop, begun, samples = threading.Event(), time.monotonic(), []
            lives = [pool.submit(peer, node, folder, stop, random.Random(n)) for n in range(PEERS)]
            try:
                for _ in track(range(SECONDS // 5), description="soaking"):
                    time.sleep(5)
                    samples.append(Sample(time.monotonic() - begun, held(node)))
            finally:
                stop.set()
            acknowledged = sum(life.result() for life in lives)
            node.wait_until_idle(600)
            ledger = node.ledger()
            exams = len(ledger.exams(limit=10**6))
            parked = ledger.jobs(limit=100, state=JobState.PARKED)
            ledger.close()
            check_rest(node, answered=acknowledged, restarts=0)
            rested = held(node)
    slopes = {
        name: slope_an_hour(samples, name) for name in ("resident_mb", "threads", "descriptors")
    }
    found = {
        "seconds": SECONDS,
        "acknowledged": acknowledged,
        "slopes an hour": {name: round(slope, 1) for name, slope in slopes.items()},
        "last": asdict(samples[-1].held),
        "at rest": asdict(rested),
    }
    save(samples)
    (BUILD / "soak.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console().print_json(data=found)
    assert exams == acknowledged
    assert parked == []
    assert rested.partial_files == 0
    hours = SECONDS / 3600
    assert slopes["threads"] * hours < 5
    assert slopes["descriptors"] * hours < 10
    assert slopes["resident_mb"] * hours < 60
