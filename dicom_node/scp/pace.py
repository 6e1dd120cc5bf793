"""How fast an institution may send: a token bucket that slows its answers and rejects nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_WAIT_SECONDS = 10.0
"""An answer is never held back for longer: senders give up after a while."""


@dataclass
class _Bucket:
    per_second: float
    size: float
    left: float
    at: float


class Pace:
    """``per_minute``: institution id to objects a minute; a minute's worth may come at once."""

    def __init__(
        self, per_minute: Mapping[str, int], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._buckets = {
            name: _Bucket(per_second=count / 60, size=count, left=count, at=now())
            for name, count in per_minute.items()
        }

    def wait_seconds(self, institution_id: str) -> float:
        """Count one object of an institution; how long to hold back its answer."""
        bucket = self._buckets.get(institution_id)
        if bucket is None:
            return 0.0
        with self._lock:
            now = self._now()
            filled = bucket.left + (now - bucket.at) * bucket.per_second
            bucket.left, bucket.at = min(bucket.size, filled) - 1, now
            # a debt larger than the longest wait would punish the sender for hours
            bucket.left = max(bucket.left, -MAX_WAIT_SECONDS * bucket.per_second)
            return max(0.0, -bucket.left / bucket.per_second)
