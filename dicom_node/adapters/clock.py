"""The machine's time and chance."""

from __future__ import annotations

import random
from datetime import UTC, datetime


class SystemClock:
    """The operating system's clock and random numbers; safe to share and to fork."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    def fraction(self) -> float:
        """Uniform random number in 0..1, independent in every process."""
        return random.SystemRandom().random()
