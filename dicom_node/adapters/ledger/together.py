"""Calls that come at the same time from several threads are made as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dicom_node.domain.errors import Transient

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 64
"""Of one call: it may not hold up others for long."""


@dataclass
class _Call(Generic[Item, Result]):
    item: Item
    result: list[Result] = field(default_factory=list)
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.result) or self.error is not None


class Together(Generic[Item, Result]):
    """``run`` takes items and returns a result for each, or raises and has then done nothing.

    Whoever finds it free runs it for all that wait; nobody waits for others to come. When it is
    not available (``Transient``) that holds for all of them; any other error is that of the one
    item which raises it alone.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._run = run
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: list[_Call[Item, Result]] = []

    def __call__(self, item: Item) -> Result:
        """The result for one item. Raises what ``run`` does."""
        mine = _Call[Item, Result](item)
        with self._guard:
            self._waiting.append(mine)
        with self._turn:
            while not mine.is_done:
                self._run_for(self._taken())
        if mine.error is not None:
            raise mine.error
        return mine.result[0]

    def _taken(self) -> list[_Call[Item, Result]]:
        with self._guard:
            taken, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        return taken

    def _run_for(self, calls: list[_Call[Item, Result]]) -> None:
        try:
            results = self._run([call.item for call in calls])
        except Exception as error:  # noqa: BLE001 it is raised again, where it belongs
            if len(calls) == 1 or isinstance(error, Transient):
                for call in calls:
                    call.error = error
                return
            for call in calls:
                self._run_for([call])
            return
        for call, result in zip(calls, results, strict=True):
            call.result.append(result)
