"""What pynetdicom writes a received data set to."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from dicom_node.scp.incoming import IncomingFile

HEAD = bytes(128) + b"DICM" + bytes.fromhex("0200 0000") + b"UL\x04\x00" + bytes(4)
"""Preamble, prefix and a file meta information that holds nothing but its length (PS3.10 7.1)."""


@pytest.fixture
def incoming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IncomingFile:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return IncomingFile(delete=False, mode="wb", suffix=".dcm")


def test_the_disk_begins_while_the_rest_is_still_coming(
    incoming: IncomingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda _, offset, count, advice: advised.append((offset, count, advice)),
    )
    incoming.write(HEAD)
    for _ in range(30):
        incoming.write(bytes(100_000))
    starts, counts, advices = zip(*advised, strict=True)
    ends = [start + count for start, count in zip(starts, counts, strict=True)]
    assert set(advices) == {os.POSIX_FADV_DONTNEED}
    assert [0, *ends[:-1]] == list(starts)  # no gap, nothing twice
    assert min(counts) >= 512 * 1024  # a call for each part would cost more than it gains
    assert len(HEAD) + 3_000_000 - ends[-1] < 512 * 1024
    incoming.close()


def test_a_file_system_that_takes_no_advice_keeps_every_byte(
    incoming: IncomingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, "no advice here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    data = os.urandom(2_000_000)
    incoming.write(HEAD)
    incoming.write(data)
    incoming.flush()
    assert not incoming.lost
    assert Path(incoming.name).read_bytes() == HEAD + data
    assert incoming.content_sha256 == hashlib.sha256(data).hexdigest()
    incoming.close()
