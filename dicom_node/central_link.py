"""The way to the centre: forwarding and heartbeats, and what is said of it when it is away."""

from __future__ import annotations

from collections.abc import Callable

from dicom_node.domain.errors import NodeError
from dicom_node.logs import log
from dicom_node.metrics import central_silent


class CentralLink:
    """Runs what talks to the centre; its absence is logged once, and costs nothing else."""

    def __init__(self, *, forward: Callable[[], int], beat: Callable[[], None]) -> None:
        self._forward = forward
        self._beat = beat
        self._silent = False
        central_silent(silent=False)

    def forward(self) -> None:
        """Tell the centre what it does not know."""
        self._try(self._forward)

    def beat(self) -> None:
        """Tell the centre that the node runs."""
        self._try(self._beat)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except NodeError as error:
            if not self._silent:
                log("central_silent", fault=error.fault, error=error)
            self._silent = True
        else:
            if self._silent:
                log("central_returned")
            self._silent = False
        central_silent(silent=self._silent)
