"""What fuzzing began with and what it found, tried again: documented errors only, in little time.

`make fuzz` looks for more with atheris, which these tests do not need.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inference.codestream import frame_size
from tests.faults.fuzz_targets import SEEDS, TARGETS, check

_FILES = sorted(path for path in SEEDS.glob("*/*"))
_CUTS = 40


def seed_id(path: Path) -> str:
    return path.relative_to(SEEDS).as_posix()


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_seeds(name: str) -> None:
    assert any(path.parent.name == name for path in _FILES)


@pytest.mark.parametrize("path", _FILES, ids=seed_id)
def test_a_seed_gives_no_other_error_than_documented(path: Path) -> None:
    target, data = TARGETS[path.parent.name], path.read_bytes()
    check(target, data)
    for end in range(0, len(data), max(1, len(data) // _CUTS)):
        check(target, data[:end])


@pytest.mark.parametrize(
    "before",
    [b"\xff" * 50_000_000, b"\xff\xe0\x00\x00" * 10_000_000, b"\xff\xe0\x00\x02" * 10_000_000],
)
def test_a_frame_header_that_never_comes_is_not_looked_for_long(before: bytes) -> None:
    begun = time.process_time()
    with pytest.raises((ValueError, IndexError)):
        frame_size(b"\xff\xd8" + before)
    assert time.process_time() - begun < 1.0


def test_an_error_that_is_not_documented_would_be_noticed() -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        check(broken, b"x")
