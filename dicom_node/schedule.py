"""Periodic housekeeping inside the delivery process, on APScheduler."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler

_STEP_SECONDS = 30.0
"""A smaller step back delays a task by no more than this."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to do every so often; one run at a time, missed runs are not made up."""

    name: str
    every_seconds: int
    run: Callable[[], None]


class Schedule:
    """Runs tasks in background threads until stopped."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        # a run that is missed because the last one still runs is no news
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone="UTC", daemon=True)
        self._ahead = _wall_ahead()
        for task in tasks:
            self._scheduler.add_job(
                task.run,
                "interval",
                id=task.name,
                seconds=task.every_seconds,
                coalesce=True,
                max_instances=1,
            )

    def start(self) -> None:
        """Begin; the first runs come after their interval."""
        self._scheduler.start()

    def look(self) -> None:
        """To be called every second or so: APScheduler plans by the wall clock, and after a step
        back would wait for the old time to come again. Every task then runs at once."""
        ahead = _wall_ahead()
        if ahead < self._ahead - _STEP_SECONDS:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
        self._ahead = ahead

    def stop(self) -> None:
        """Stop and wait for running tasks."""
        self._scheduler.shutdown(wait=True)


def _wall_ahead() -> float:
    """Seconds that the wall clock is ahead of the monotonic one."""
    return time.time() - time.monotonic()
