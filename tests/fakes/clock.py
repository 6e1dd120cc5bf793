"""Time that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """The port ``Clock``, moved by hand."""

    def __init__(self) -> None:
        self._now = datetime(2026, 3, 1, 12, 0, 0, 123457, UTC)

    def now(self) -> datetime:
        """Aware UTC."""
        return self._now

    def fraction(self) -> float:
        """Always the middle of 0..1."""
        return 0.5

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
