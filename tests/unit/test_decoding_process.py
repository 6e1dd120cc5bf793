"""Decoding in a child: the same grey levels and refusals, and an end to whatever has none."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inference.decode import UnreadablePixels, decode
from inference.decoding_process import MAX_CRASHES, DecodingProcess, DecodingStopped
from inference.prediction import EngineFailed, HandBox, Rejection
from inference.preprocess import read
from tests.builders.dicom_files import hand_dataset, write_file
from tests.peers.held import own_descriptors


@pytest.fixture(scope="module")
def process() -> DecodingProcess:
    return DecodingProcess(max_seconds=2.0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_file(tmp_path / "hand.dcm", hand_dataset(side_pixels=400))


def test_the_grey_levels_are_those_of_this_process(process: DecodingProcess, image: Path) -> None:
    assert np.array_equal(process.decode(image), decode(image))
    larger = write_file(image.with_name("larger.dcm"), hand_dataset(side_pixels=900))
    first = process.decode(image)
    assert np.array_equal(process.decode(larger), decode(larger))
    assert np.array_equal(first, decode(image)), "the next image overwrote it"


def test_the_radiograph_is_that_of_this_process(process: DecodingProcess, tmp_path: Path) -> None:
    dataset = hand_dataset(side_pixels=400)
    pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(400, 400)
    framed = np.pad(pixels, ((20, 40), (60, 0)))
    dataset.Rows, dataset.Columns = framed.shape
    dataset.PixelData = framed.tobytes()
    path = write_file(tmp_path / "framed.dcm", dataset)
    found, expected = process.read(path), read(path)
    assert np.array_equal(found.stored, expected.stored)
    assert found.field == expected.field != HandBox(left=0, top=0, right=460, bottom=460)
    process.read(write_file(tmp_path / "plain.dcm", hand_dataset(side_pixels=400)))
    assert np.array_equal(found.stored, expected.stored), "the next image overwrote it"


def test_an_image_of_many_pixels_gives_its_memory_back(
    process: DecodingProcess, tmp_path: Path
) -> None:
    large = write_file(tmp_path / "large.dcm", hand_dataset(side_pixels=4500))
    found = process.decode(large)
    assert found.shape == (4500, 4500)
    assert np.array_equal(found[-1, -5:], decode(large)[-1, -5:])
    assert os.fstat(process._pixels).st_blocks * 512 <= 64 * 1024 * 1024


def test_refusals_are_those_of_this_process(process: DecodingProcess, tmp_path: Path) -> None:
    small = write_file(tmp_path / "small.dcm", hand_dataset(side_pixels=64))
    with pytest.raises(UnreadablePixels, match="too small") as caught:
        process.decode(small)
    assert caught.value.rejection is Rejection.IMAGE_TOO_SMALL
    with pytest.raises(FileNotFoundError):
        process.decode(tmp_path / "gone.dcm")
    path = tmp_path / "garbage.dcm"
    path.write_bytes(b"no DICOM at all")
    with pytest.raises(UnreadablePixels):
        process.decode(path)


def test_what_takes_too_long_is_stopped_and_the_next_file_decoded(
    process: DecodingProcess, image: Path, tmp_path: Path
) -> None:
    endless = tmp_path / "fifo"
    os.mkfifo(endless)
    begun = time.monotonic()
    with pytest.raises(DecodingStopped, match="not decoded within 2 s"):
        process.decode(endless)
    assert time.monotonic() - begun < 6
    assert np.array_equal(process.decode(image), decode(image))


def test_a_process_that_does_not_answer_any_more_is_replaced(
    process: DecodingProcess, image: Path
) -> None:
    process.decode(image)
    assert process._child is not None
    os.kill(process._child._process.pid, signal.SIGSTOP)
    with pytest.raises(DecodingStopped):
        process.decode(image)
    assert np.array_equal(process.decode(image), decode(image))


def test_one_crash_is_forgiven_and_the_third_is_not(image: Path, tmp_path: Path) -> None:
    process = DecodingProcess(max_seconds=20)
    process.decode(image)
    assert process._child is not None
    process._child._process.send_signal(signal.SIGSEGV)
    assert np.array_equal(process.decode(image), decode(image))

    deadly = tmp_path / "fifo"
    os.mkfifo(deadly)
    stop, hit = threading.Event(), set[int]()

    def kill() -> None:
        """Whichever process is at the deadly file dies of it."""
        while not stop.wait(0.02):
            child = process._child
            if child is not None and child._greeted and child._process.pid not in hit:
                hit.add(child._process.pid)
                child._process.send_signal(signal.SIGSEGV)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(DecodingStopped, match="crashed 3 times"):
            process.decode(deadly)
    finally:
        stop.set()
        thread.join()
    assert len(hit) == MAX_CRASHES
    assert np.array_equal(process.decode(image), decode(image))


def test_memory_has_a_limit(tmp_path: Path) -> None:
    process = DecodingProcess(max_bytes=900_000_000)
    large = write_file(tmp_path / "large.dcm", hand_dataset(side_pixels=9000))
    with pytest.raises(UnreadablePixels) as caught:
        process.decode(large)
    assert caught.value.rejection is Rejection.PIXELS_UNREADABLE


def test_the_process_ends_with_its_owner(image: Path) -> None:
    process = DecodingProcess()
    process.decode(image)
    assert process._child is not None
    pid = process._child._process.pid
    assert b"decoding" in cmdline(pid)
    del process
    gc.collect()
    assert b"decoding" not in cmdline(pid)


def test_the_process_ends_when_its_owner_is_killed(image: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from inference.decoding_process import DecodingProcess\n"
        "process = DecodingProcess(); process.decode(Path(sys.argv[1]))\n"
        "print(process._child._process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, image], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and b"decoding" in cmdline(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("interpreter", ["/bin/false", "/nowhere/python"])
def test_a_process_that_does_not_start_is_no_fault_of_the_file(
    image: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    process = DecodingProcess()
    before = own_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", interpreter)
        for _ in range(3):
            with pytest.raises(EngineFailed, match="does not start"):
                process.decode(image)
    assert own_descriptors() == before
    assert np.array_equal(process.decode(image), decode(image))
