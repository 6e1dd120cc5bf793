"""How much of the bare network's rate the node's engine keeps, and what a cold start costs.

`make bench` runs it and writes `build/benchmarks/inference.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import inference
from inference.bundle import ONNX, Bundle, find_bundle, load_bundle
from inference.engines.choice import engine_for
from inference.engines.engine import Device, Engine, EngineEvent
from inference.engines.fallback import FallbackEngine
from inference.engines.onnx import OUTPUTS, OnnxEngine
from inference.engines.remembering import RememberingEngine

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

REPOSITORY = Path(inference.__file__).parent.parent
BUNDLE = find_bundle(REPOSITORY / "config" / "models", "boneage-lite0")
RESULT = REPOSITORY / "build" / "benchmarks" / "inference.json"
ROUNDS = 40
REQUIRED_RATIO = 0.85

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]
Run = Callable[[NDArray[np.uint8], NDArray[np.float32]], object]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The newest released model."""
    return load_bundle(BUNDLE)


@pytest.fixture(scope="module")
def figures() -> Iterator[list[dict[str, object]]]:
    """Everything that was measured: shown and written at the end."""
    measured: list[dict[str, object]] = []
    yield measured
    console = Console()
    for kind in dict.fromkeys(str(row["measured"]) for row in measured):
        rows = [row for row in measured if row["measured"] == kind]
        table = Table(*[name for name in rows[0] if name != "measured"], title=kind)
        for row in rows:
            values = [value for name, value in row.items() if name != "measured"]
            table.add_row(*[f"{v:.2f}" if isinstance(v, float) else str(v) for v in values])
        console.print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def batches(size: int, side: int) -> list[Batch]:
    """No image twice, so that no answer is remembered."""
    rng = np.random.default_rng(size)
    male = (np.arange(size) % 2)[:, None].astype(np.float32)
    return [
        (rng.integers(0, 256, (size, 1, side, side), dtype=np.uint8), male)
        for _ in range(ROUNDS + 1)
    ]


def nothing_happens(event: EngineEvent) -> None:
    """The benchmark measures undisturbed work."""
    pytest.fail(f"{event} during the benchmark")


def torch_engine(bundle: Bundle, device: Device, batch: int) -> Engine:
    """As the node builds it for CUDA; on the CPU the same around torch's CPU."""
    if device == "cuda":
        return engine_for(
            bundle, device="cuda", precision="auto", batch_max=batch, on_event=nothing_happens
        )
    from inference.engines.torch import TorchEngine

    behind = FallbackEngine(
        lambda: TorchEngine(bundle, "cpu", warm_batches=(1, batch)),
        lambda: OnnxEngine(bundle),
        on_event=nothing_happens,
    )
    return RememberingEngine(behind, bundle.identity.sha256, on_event=nothing_happens)


def bare_torch(bundle: Bundle, device: Device) -> Run:
    """The network of the bundle called directly, its input ready on the device."""
    import torch

    from inference.engines.torch import TorchEngine

    estimator = TorchEngine(bundle, device)._estimator

    def run(images: NDArray[np.uint8], male: NDArray[np.float32]) -> None:
        with torch.inference_mode():
            estimator(torch.from_numpy(images).to(device), torch.from_numpy(male).to(device))
            if device == "cuda":
                torch.cuda.synchronize()

    return run


def bare_onnx(bundle: Bundle) -> Run:
    """``session.run`` with the options of the engine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        bundle.read(ONNX), options, providers=["CPUExecutionProvider"]
    )
    return lambda images, male: session.run(OUTPUTS, {"image": images, "male": male})


def seconds_of(run: Run, batch: Batch, clock: Callable[[], float]) -> float:
    """Duration of one call."""
    begun = clock()
    run(*batch)
    return clock() - begun


def compare(
    figures: list[dict[str, object]], runtime: str, engine: Run, bare: Run, work: list[Batch]
) -> float:
    """Engine and bare network in turn on each batch; the ratio of their rates by medians.

    On the CPU one thread does all the work, so that its CPU time is the wall time of a machine
    without other programs.
    """
    clock = time.perf_counter if "CUDA" in runtime else time.process_time
    engine(*work[0])
    bare(*work[0])
    pairs = [
        (seconds_of(engine, batch, clock), seconds_of(bare, batch, clock))
        if number % 2
        else (seconds_of(bare, batch, clock), seconds_of(engine, batch, clock))[::-1]
        for number, batch in enumerate(work[1:])
    ]
    engine_seconds, bare_seconds = (median(column) for column in zip(*pairs, strict=True))
    size = len(work[0][0])
    ratio = float(bare_seconds / engine_seconds)
    figures.append(
        {
            "measured": "rate of the engine and of the bare network",
            "runtime": runtime,
            "batch": size,
            "engine ms/image": 1000 * engine_seconds / size,
            "bare ms/image": 1000 * bare_seconds / size,
            "ratio of rates": ratio,
        }
    )
    return ratio


def test_onnxruntime_keeps_the_rate_of_the_bare_network(
    bundle: Bundle, figures: list[dict[str, object]]
) -> None:
    engine = engine_for(
        bundle, device="cpu", precision="auto", batch_max=8, on_event=nothing_happens
    )
    ratio = compare(
        figures, "onnxruntime CPU", engine.run, bare_onnx(bundle), batches(1, bundle.side)
    )
    assert ratio >= REQUIRED_RATIO


@pytest.mark.parametrize("batch", [2, 8])
def test_a_batch_on_the_cpu_is_no_slower_than_all_at_once(
    bundle: Bundle, figures: list[dict[str, object]], batch: int
) -> None:
    ratio = compare(
        figures,
        "onnxruntime CPU",
        OnnxEngine(bundle).run,
        bare_onnx(bundle),
        batches(batch, bundle.side)[: ROUNDS // 2],
    )
    assert ratio >= REQUIRED_RATIO


@pytest.mark.parametrize(
    ("device", "batch"),
    [("cpu", 1), ("cpu", 8), ("cuda", 1), ("cuda", 8), ("cuda", 32)],
)
def test_torch_keeps_the_rate_of_the_bare_network(
    bundle: Bundle, figures: list[dict[str, object]], device: Device, batch: int
) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.set_num_threads(1)
    ratio = compare(
        figures,
        f"torch {device.upper()}",
        torch_engine(bundle, device, batch).run,
        bare_torch(bundle, device),
        batches(batch, bundle.side)[: ROUNDS if device == "cuda" else ROUNDS // 2],
    )
    assert ratio >= REQUIRED_RATIO


ENGINES = {
    "onnxruntime CPU": "from inference.engines.onnx import OnnxEngine\nengine = OnnxEngine(bundle)",
    "torch CPU": "from inference.engines.torch import TorchEngine\n"
    "engine = TorchEngine(bundle, 'cpu')",
}


@pytest.mark.parametrize("runtime", ENGINES)
def test_cold_start_to_the_first_answer(figures: list[dict[str, object]], runtime: str) -> None:
    if runtime.startswith("torch"):
        pytest.importorskip("torch", reason="needs the torch extra")
    program = (
        "import re; from pathlib import Path; import numpy as np\n"
        "from inference.bundle import load_bundle\n"
        f"bundle = load_bundle(Path({str(BUNDLE)!r}))\n{ENGINES[runtime]}\n"
        "image = np.zeros((1, 1, bundle.side, bundle.side), np.uint8)\n"
        "print(engine.run(image, np.ones((1, 1), np.float32)).mean_months[0])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    months, peak_kib = done.stdout.split()
    assert 0 <= float(months) <= 240
    figures.append(
        {
            "measured": "a fresh process: start to its first answer and end",
            "runtime": runtime,
            "seconds": seconds,
            "peak memory MiB": int(peak_kib) / 1024,
        }
    )
