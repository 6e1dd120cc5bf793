from __future__ import annotations

from datetime import timedelta

import pytest

from dicom_node.adapters.clock import SystemClock
from dicom_node.ports import Clock
from tests.fakes.clock import ManualClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=["system", "manual"])
def test_times_are_aware_utc_and_fractions_lie_in_0_to_1(clock: Clock) -> None:
    assert clock.now().utcoffset() == timedelta(0)
    assert all(0 <= clock.fraction() <= 1 for _ in range(100))


def test_the_system_clock_gives_different_fractions() -> None:
    assert len({SystemClock().fraction() for _ in range(100)}) > 90
