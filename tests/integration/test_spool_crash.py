"""Kill -9 at every step of keeping an object: what was acknowledged is there, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.adapters.spool import DiskSpool

KEEPER = """
import os, sys, signal
from pathlib import Path
from dicom_node.adapters.spool import DiskSpool

spool, die_at, calls = DiskSpool(Path(sys.argv[1])), int(sys.argv[2]), 0


def dying(real):
    def call(*args):
        global calls
        for moment in ("before", "after"):
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if moment == "before":
                real(*args)
    return call


for name in ("fchmod", "fsync", "replace", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
for number in range(1_000_000):
    partial = spool.incoming / "x.part"
    head = bytes(128) + b"DICM" + bytes.fromhex("02000000554c040000000000")
    partial.write_bytes(head + number.to_bytes(8, "big") * 2000)
    os.write(1, spool.keep(partial).content_sha256.encode() + b"\\n")
"""


@pytest.mark.parametrize("die_at", range(1, 18))
def test_killed_at_any_step_no_acknowledged_object_is_lost(tmp_path: Path, die_at: int) -> None:
    keeper = subprocess.run(
        [sys.executable, "-c", KEEPER, str(tmp_path / "spool"), str(die_at)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert keeper.returncode == -9, keeper.stderr
    acknowledged = set(keeper.stdout.split())
    spool = DiskSpool(tmp_path / "spool")
    objects = spool.sweep()
    assert acknowledged <= objects
    assert len(objects - acknowledged) <= 1
    assert list(spool.incoming.iterdir()) == []
    for content_sha256 in objects:
        spool.verify(content_sha256)
    assert len(acknowledged) == (die_at - 1) // 8
