"""Periodic housekeeping inside the delivery process, on APScheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apscheduler.schedulers.background import BackgroundScheduler


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to do every so often; one run at a time, missed runs are not made up."""

    name: str
    every_seconds: int
    run: Callable[[], None]


class Schedule:
    """Runs tasks in background threads until stopped."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._scheduler = BackgroundScheduler(timezone="UTC", daemon=True)
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

    def stop(self) -> None:
        """Stop and wait for running tasks."""
        self._scheduler.shutdown(wait=True)
