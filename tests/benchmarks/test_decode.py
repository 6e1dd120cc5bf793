"""Decoding and preprocessing in every transfer syntax, beside the bare codec and a bare resize.

`make bench` runs it and writes `build/benchmarks/decode.json` and `.png`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import UID

from inference.decode import decode
from inference.decoding_process import DecodingProcess
from inference.preprocess import STORED_SIDE, to_stored_size
from tests.benchmarks.results import publish
from tests.builders.exams import radiograph_dataset, save_dicom
from tests.integration.peers import dcmtk_program

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

ROWS, COLUMNS = 2500, 2048
ROUNDS = 7
MADE_BY_PYDICOM = ("1.2.5", "1.2.4.80", "1.2.4.90")
MADE_BY_DCMTK = {"1.2.4.57": "+el", "1.2.4.70": "+e1"}
"""And the options of dcmcjpeg."""
MAX_RATIO = 2.5

Pixels = NDArray[np.uint16]


def files(folder: Path) -> dict[str, Path]:
    """The end of the transfer syntax UID to a radiograph of 5 megapixels in it."""
    plain = save_dicom(radiograph_dataset(rows=ROWS, columns=COLUMNS), folder / "plain.dcm")
    made = {"1.2.1": plain}
    for end in MADE_BY_PYDICOM:
        dataset = dcmread(plain)
        made[end] = save_dicom(dataset, folder / f"{end}.dcm", UID(f"1.2.840.10008.{end}"))
    for end, option in MADE_BY_DCMTK.items():
        made[end] = folder / f"{end}.dcm"
        subprocess.run([dcmtk_program("dcmcjpeg"), option, plain, made[end]], check=True)
    return made


def bare(end: str, path: Path) -> Callable[[], Pixels]:
    """The codec alone, its frame at hand."""
    dataset = dcmread(path)
    if end == "1.2.1":
        content = path.read_bytes()[-2 * ROWS * COLUMNS :]
        return lambda: np.frombuffer(content, np.uint16).reshape(ROWS, COLUMNS)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    jpeg, jpeg2000, rle = map(import_module, ("libjpeg", "openjpeg", "rle.rle"))  # without types
    if end == "1.2.5":
        return lambda: np.frombuffer(
            rle.decode_frame(frame, ROWS * COLUMNS, 16, "<"), np.uint16
        ).reshape(ROWS, COLUMNS)
    if end == "1.2.4.80":
        return lambda: jpeg_ls.decode(np.frombuffer(frame, np.uint8))
    if end == "1.2.4.90":
        return lambda: jpeg2000.decode(frame)
    return lambda: jpeg.decode(frame)


def small(pixels: Pixels) -> NDArray[np.float32]:
    """A bare resize to the network's stored size."""
    image = Image.fromarray(pixels.astype(np.float32))
    return np.asarray(image.resize((STORED_SIDE, STORED_SIDE), Image.Resampling.BILINEAR))


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def test_decoding_costs_little_more_than_the_codec(tmp_path: Path) -> None:
    child = DecodingProcess()
    child.start()
    rows = []
    for end, path in files(tmp_path).items():
        codec = bare(end, path)
        runs: dict[str, Callable[[], object]] = {
            "bare": lambda codec=codec: small(codec()),  # type: ignore[misc]
            "ours": lambda path=path: to_stored_size(decode(path)),  # type: ignore[misc]
            "child": lambda path=path: to_stored_size(child.decode(path)),  # type: ignore[misc]
        }
        for run in runs.values():
            run()
        took: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                took[name].append(seconds(run))
        milliseconds = {name: median(values) * 1000 for name, values in took.items()}
        rows.append(
            {
                "transfer syntax": UID(f"1.2.840.10008.{end}").name,
                "bare codec and resize, ms": milliseconds["bare"],
                "ours, ms": milliseconds["ours"],
                "in its own process, ms": milliseconds["child"],
                "ratio of times": milliseconds["ours"] / milliseconds["bare"],
                "ratio in its own process": milliseconds["child"] / milliseconds["bare"],
            }
        )
    publish("decode", f"{ROWS} x {COLUMNS} pixels", rows, bars="in its own process, ms")
    coded = [row for row in rows if "JPEG" in str(row["transfer syntax"])]
    assert all(float(str(row["ratio of times"])) < MAX_RATIO for row in coded)
