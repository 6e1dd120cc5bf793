"""Calls of several threads that are made as one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicom_node.adapters.ledger.together import Together
from dicom_node.domain.errors import Fault, Transient
from tests.integration.peers import wait_until


class Disk:
    """Takes a batch at a time, the first when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.first_may_end = threading.Event()
        self.first_has_begun = threading.Event()

    def write(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.first_has_begun.set()
        assert self.first_may_end.wait(20)
        if self.error is not None:
            raise self.error
        if 13 in items:
            raise ValueError(f"13 among {len(items)}")
        return [10 * item for item in items]


def call_together(disk: Disk, items: Sequence[int]) -> list[int | Exception]:
    """The first item alone, all others while it is being written."""
    together = Together(disk.write)

    def call(item: int) -> int | Exception:
        try:
            return together(item)
        except Exception as error:  # noqa: BLE001 it is what the test is about
            return error

    with ThreadPoolExecutor(len(items)) as threads:
        first = threads.submit(call, items[0])
        assert disk.first_has_begun.wait(20)
        others = [threads.submit(call, item) for item in items[1:]]
        wait_until(lambda: len(together._waiting) == len(items) - 1)
        disk.first_may_end.set()
        return [future.result(20) for future in (first, *others)]


def test_who_comes_alone_does_not_wait_for_others() -> None:
    disk = Disk()
    disk.first_may_end.set()
    together = Together(disk.write)
    assert [together(1), together(2)] == [10, 20]
    assert disk.batches == [[1], [2]]


def test_who_waits_shares_a_call_and_gets_his_own_result() -> None:
    disk = Disk()
    assert call_together(disk, range(10)) == [10 * item for item in range(10)]
    assert [len(batch) for batch in disk.batches] == [1, 9]


def test_a_crowd_is_served_in_batches_that_end() -> None:
    disk = Disk()
    items = range(100, 250)
    assert call_together(disk, items) == [10 * item for item in items]
    assert [len(batch) for batch in disk.batches] == [1, 64, 64, 21]


def test_one_bad_item_fails_alone() -> None:
    disk = Disk()
    results = call_together(disk, [1, 12, 13, 14])
    assert [results[0], results[1], results[3]] == [10, 120, 140]
    with pytest.raises(ValueError, match="13 among 1"):
        raise results[2]  # type: ignore[misc]


def test_a_disk_that_fails_fails_all_at_once() -> None:
    disk = Disk()
    disk.error = Transient(Fault.STORAGE_UNAVAILABLE, "full")
    assert call_together(disk, range(5)) == [disk.error] * 5
    assert len(disk.batches) == 2
