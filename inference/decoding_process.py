"""Decoding in a process that can be killed: a small file may keep a codec busy for minutes, take
all memory or crash it.

``python -m inference.decoding_process REPLIES PIXELS BYTES`` is that process. It reads a request a
line and writes what became of it a line; grey levels lie in memory that both processes map.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.decode import MAX_PIXELS, UnreadablePixels, decode
from inference.prediction import EngineFailed, HandBox, Rejection
from inference.preprocess import Radiograph, to_radiograph

MAX_SECONDS = 20.0
MAX_BYTES = 3 * 1024**3
MAX_CRASHES = 3
_PIXEL_BYTES = 4
_SHARED_BYTES = MAX_PIXELS * _PIXEL_BYTES
_KEPT_BYTES = 64 * 1024 * 1024
"""Shared memory that a large image has touched beyond this is given back."""
_START_SECONDS = 60.0
_ALONE_SECONDS = 60
"""After so long the process ends by itself: whoever asked is gone."""


class DecodingStopped(Exception):
    """The file is no image that can be decoded within the limits. The message holds no header
    value."""


class DecodingProcess:
    """A child that decodes one file at a time; started when it is needed, and again when it died.
    It ends with this object or with its process.

    ``max_seconds``: wall time for one file. ``max_bytes``: its address space. Threads take turns.
    """

    def __init__(self, *, max_seconds: float = MAX_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self._max_seconds, self._max_bytes = max_seconds, max_bytes
        self._lock = threading.Lock()
        self._pixels = os.memfd_create("pixels", os.MFD_CLOEXEC)
        os.ftruncate(self._pixels, _SHARED_BYTES)  # sparse: only what is touched takes memory
        self._map = mmap.mmap(self._pixels, _SHARED_BYTES, prot=mmap.PROT_READ)
        self._child: _Child | None = None
        self._end = weakref.finalize(self, lambda: None)
        weakref.finalize(self, os.close, self._pixels)

    def start(self) -> None:
        """Start the process now, without waiting for it."""
        with self._lock:
            self._started()

    def decode(self, path: Path) -> NDArray[np.float32]:
        """As :func:`inference.decode.decode`. Raises :class:`DecodingStopped` when it took too
        long or the process crashed over this file for the third time, :class:`EngineFailed` when
        the process does not start: that is no fault of the file."""
        grey, _ = self._found(path, whole=True)
        return grey

    def read(self, path: Path) -> Radiograph:
        """As :func:`inference.preprocess.read`: of the pixels no more than the networks look at
        leaves the child. Raises as :meth:`decode`."""
        stored, reply = self._found(path, whole=False)
        left, top, right, bottom = reply["field"]
        field = HandBox(left=left, top=top, right=right, bottom=bottom)
        return Radiograph(stored=stored, field=field)

    def _found(self, path: Path, *, whole: bool) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Grey levels, and the reply that they came with."""
        with self._lock:
            for _ in range(MAX_CRASHES):
                reply = self._ask(path, whole=whole)
                if reply is not None:
                    return self._grey_levels(reply), reply
        raise DecodingStopped(f"the decoder crashed {MAX_CRASHES} times over this object")

    def _ask(self, path: Path, *, whole: bool) -> dict[str, Any] | None:
        """The reply, None when the process died."""
        child = self._started()
        try:
            return child.ask({"path": str(path), "whole": whole}, self._max_seconds)
        except (BrokenPipeError, EOFError):
            return None
        except TimeoutError:
            child.end()
            raise DecodingStopped(
                f"the object was not decoded within {self._max_seconds:.0f} s"
            ) from None

    def _grey_levels(self, reply: dict[str, Any]) -> NDArray[np.float32]:
        if "rejection" in reply:
            raise UnreadablePixels(reply["message"], Rejection(reply["rejection"]))
        if "errno" in reply:
            raise OSError(reply["errno"], reply["message"])
        rows, columns = reply["shape"]
        count = rows * columns
        grey = np.frombuffer(self._map, np.float32, count).reshape(rows, columns).copy()
        if count * _PIXEL_BYTES > _KEPT_BYTES:
            os.ftruncate(self._pixels, _KEPT_BYTES)
            os.ftruncate(self._pixels, _SHARED_BYTES)
        return grey

    def _started(self) -> _Child:
        if self._child is None or not self._child.alive:
            self._end.detach()
            self._child = _Child(self._pixels, self._max_bytes)
            self._end = weakref.finalize(self, self._child.end)
        return self._child


class _Child:
    def __init__(self, pixels: int, max_bytes: int) -> None:
        replies, theirs = os.pipe()
        numbers = map(str, (theirs, pixels, max_bytes))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "inference.decoding_process", *numbers],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # codecs print what they like
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs, pixels),
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            os.close(replies)
            raise EngineFailed(f"the decoding process does not start: {error.strerror}") from None
        finally:
            os.close(theirs)
        self._replies = os.fdopen(replies, "rb")
        self._greeted = False
        self.alive = True

    def ask(self, request: dict[str, object], seconds: float) -> dict[str, Any]:
        """Raises ``BrokenPipeError`` or ``EOFError`` when the process has died, ``TimeoutError``
        when it does not answer in time."""
        try:
            self._greet()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return self._reply(seconds)
        except (BrokenPipeError, EOFError):
            self.end()
            raise

    def _greet(self) -> None:
        if self._greeted:
            return
        try:
            self._reply(_START_SECONDS)
        except (EOFError, TimeoutError):
            self.end()
            raise EngineFailed("the decoding process does not start") from None
        self._greeted = True

    def end(self) -> None:
        """Kill the process, if it is still there."""
        if self.alive:
            self.alive = False
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._replies.close()

    def _reply(self, seconds: float) -> dict[str, Any]:
        if not select.select([self._replies], [], [], seconds)[0]:
            raise TimeoutError
        line = self._replies.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return dict(json.loads(line))


def main(replies: int, pixels: int, max_bytes: int) -> None:
    """Decode until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shared = np.frombuffer(mmap.mmap(pixels, _SHARED_BYTES), np.float32)
    with os.fdopen(replies, "wb", buffering=0) as out:
        out.write(b"{}\n")
        for line in sys.stdin:
            signal.alarm(_ALONE_SECONDS)
            out.write(json.dumps(_answer(json.loads(line), shared)).encode() + b"\n")
            signal.alarm(0)


def _answer(request: dict[str, Any], shared: NDArray[np.float32]) -> dict[str, object]:
    try:
        grey = decode(Path(request["path"]))
    except UnreadablePixels as error:
        return {"rejection": error.rejection.value, "message": str(error)}
    except OSError as error:
        return {"errno": error.errno, "message": error.strerror}
    if request["whole"]:
        shared[: grey.size] = grey.ravel()
        return {"shape": grey.shape}
    radiograph = to_radiograph(grey)
    stored, field = radiograph.stored, radiograph.field
    shared[: stored.size] = stored.ravel()
    return {
        "shape": stored.shape,
        "field": (field.left, field.top, field.right, field.bottom),
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
