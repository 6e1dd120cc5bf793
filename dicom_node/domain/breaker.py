"""Whether to go on sending to a destination that does not answer (Nygard M, Release It!, 2007:
circuit breaker)."""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_OPEN = 5
FIRST_PROBE_SECONDS = 10.0
LAST_PROBE_SECONDS = 60.0


@dataclass
class Breaker:
    """Open after five deliveries in a row that got no answer; then only probes go out, ten seconds
    later and then at twice the distance up to a minute, until one is answered.

    It stops sending, never receiving or reporting. Times in seconds of one monotonic clock.
    """

    _failures: int = 0
    _probe_at: float | None = None
    _distance: float = FIRST_PROBE_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether nothing but probes may be sent."""
        return self._probe_at is not None

    def answered(self) -> None:
        """The destination answered, whatever it said."""
        self._failures, self._probe_at, self._distance = 0, None, FIRST_PROBE_SECONDS

    def unanswered(self, now: float) -> bool:
        """A delivery or a probe got no answer; whether that has opened the breaker."""
        self._failures += 1
        if self._probe_at is not None:
            self._distance = min(2 * self._distance, LAST_PROBE_SECONDS)
            self._probe_at = now + self._distance
            return False
        if self._failures < FAILURES_TO_OPEN:
            return False
        self._probe_at = now + self._distance
        return True

    def probe_due(self, now: float) -> bool:
        """Whether the destination may be asked again if it is there."""
        return self._probe_at is not None and now >= self._probe_at
