"""A real GPU without memory, and one that an error has spoiled: every exam gets its result.

What no GPU is needed for, failures injected into torch on the CPU, is in
``tests/unit/gpu/``.
"""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.adapters.predictor import MODELS
from dicom_node.adapters.scu.exam_sender import send_files
from inference.bundle import Bundle, find_bundle, load_bundle
from inference.engines.choice import engine_for
from inference.engines.engine import EngineEvent
from inference.engines.fallback import FIRST_PAUSE_SECONDS
from inference.engines.onnx import OnnxEngine
from inference.phantom.dicom import write_radiograph
from inference.phantom.exams import phantom_exams
from tests.integration.peers import running_storescp
from tests.peers.node import Node, running_node, write_config

torch = pytest.importorskip("torch", reason="needs the torch extra")

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(300),
]

MAX_APART_MONTHS = 0.1
_TAKE_ALL_MEMORY = """
import sys, torch
held, size = [], 1 << 30
while size >= 1 << 20:
    try:
        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        size //= 2
print("taken", flush=True)
sys.stdin.read()
"""


def released() -> Bundle:
    """The newest released model."""
    return load_bundle(find_bundle(MODELS, "boneage-lite0"))


def noise(bundle: Bundle, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Input of the network, (count, 1, side, side) and (count, 1)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, bundle.side, bundle.side)).astype(np.uint8)
    return images, (np.arange(count) % 2)[:, None].astype(np.float32)


@contextmanager
def memory_taken() -> Iterator[None]:
    """Another program has all of the GPU's memory for the time of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _TAKE_ALL_MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        yield
        other.stdin.close()


def test_a_batch_that_does_not_fit_runs_in_halves_with_the_same_result() -> None:
    bundle = released()
    events: list[EngineEvent] = []
    gc.collect()  # engines of other tests
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    engine = engine_for(
        bundle, device="cuda", precision="auto", batch_max=4, on_event=events.append
    )
    images, male = noise(bundle, 64, seed=1)
    room = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        room / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        found = engine.run(images, male)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert set(events) == {EngineEvent.OUT_OF_MEMORY}
    expected = OnnxEngine(bundle).run(images, male)
    assert np.abs(found.mean_months - expected.mean_months).max() <= MAX_APART_MONTHS


def after_an_error_in_a_kernel() -> tuple[list[EngineEvent], float]:
    """What happens to the engine of a process in which CUDA does not work any more, and how far
    its next result is from the CPU's, in months."""
    bundle = released()
    events: list[EngineEvent] = []
    engine = engine_for(
        bundle, device="cuda", precision="auto", batch_max=2, on_event=events.append
    )
    engine.run(*noise(bundle, 2, seed=2))
    assert events == []
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")].cpu()
    images, male = noise(bundle, 2, seed=3)
    found, expected = engine.run(images, male), OnnxEngine(bundle).run(images, male)
    return events, float(np.abs(found.mean_months - expected.mean_months).max())


def test_the_cpu_takes_over_where_an_error_has_spoiled_cuda_for_the_process() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as other:
        events, apart = other.submit(after_an_error_in_a_kernel).result()
    assert events == [EngineEvent.DEVICE_LOST, EngineEvent.CPU_BATCH]
    assert apart <= MAX_APART_MONTHS


def runs_on(node: Node, device: str) -> bool:
    return f'dicom_node_inference_workers{{device="{device}"}} 1' in node.get("/metrics")


def test_a_node_without_gpu_memory_works_on_the_cpu_until_there_is_some(tmp_path: Path) -> None:
    exams = list(phantom_exams(14, seed=4))
    files = [tmp_path / f"{number:02}.dcm" for number in range(len(exams))]
    for path, exam in zip(files, exams, strict=True):
        write_radiograph(path, exam, rows=640, columns=480)

    assessed = 0

    def assess(node: Node, some: list[Path]) -> None:
        nonlocal assessed
        sent = send_files(some, node.peer, calling_ae_title="MODALITY")
        assert all(item.status == 0x0000 for item in sent)
        node.wait_until_idle(60)
        assessed += len(some)

    with running_storescp(tmp_path / "pacs") as port, ExitStack() as meanwhile:
        write_config(
            tmp_path / "node",
            [("pacs", "PACS", port)],
            extra='[inference]\ndevice = "cuda"\nworkers = 1\n',
        )
        meanwhile.enter_context(memory_taken())
        with running_node(tmp_path / "node") as node:
            assert '"gpu_lost"' in node.log()
            assert runs_on(node, "cpu")
            assess(node, files[:2])
            assert '"gpu_returned"' not in node.log()
            meanwhile.close()
            for path in files[2:]:  # the GPU is tried again with an exam at hand, after a pause
                time.sleep(FIRST_PAUSE_SECONDS)
                assess(node, [path])
                if '"gpu_returned"' in node.log():
                    break
            assert runs_on(node, "cuda")
            assert '"job_parked"' not in node.log()
            assert node.log().count('"report_built"') == assessed
