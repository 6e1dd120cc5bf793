"""Coverage-guided fuzzing with atheris: ``python -m tests.faults.fuzz TARGET SECONDS``.

Begins with the seeds in ``tests/faults/seeds/TARGET``, keeps what reaches new code below
``build/fuzz/`` and writes an input that breaks a target's word among the seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["dicom_node.scp", "dicom_node.headers", "inference", "pydicom", "pynetdicom"]
):
    from tests.faults.fuzz_targets import MAX_BYTES, SEEDS, TARGETS, check


def main(name: str, seconds: str) -> None:
    """Try one target for so long; a finding ends it with an error."""
    seeds, corpus = SEEDS / name, Path("build", "fuzz", name)
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={seeds}/found-",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, str(corpus), str(seeds)], lambda data: check(TARGETS[name], data)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:3])
