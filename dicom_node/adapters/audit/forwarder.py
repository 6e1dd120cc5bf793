"""Takes recorded messages, the oldest first, to where they stay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from dicom_node import metrics
from dicom_node.adapters.audit.trail import AuditFolders, waiting
from dicom_node.domain.errors import NodeError
from dicom_node.durable import sync_folder
from dicom_node.logs import log

_BATCH = 100
_LOOK_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0


class Sink(Protocol):
    """Where messages stay."""

    def take(self, messages: Sequence[bytes]) -> None:
        """Take messages in order, all or (by an ``OSError`` or ``NodeError``) perhaps some of them:
        what was not taken for sure comes again."""


class AuditForwarder:
    """Empties the queue into ``sink``; what the sink does not take waits, in order."""

    def __init__(self, folders: AuditFolders, sink: Sink) -> None:
        self._folders = folders
        self._sink = sink
        self._failed = False

    def run(self, stop: threading.Event) -> None:
        """Forward until ``stop``; after a failure the pauses double up to a minute."""
        delay = _LOOK_SECONDS
        while not stop.wait(delay):
            taken = self.forward()
            delay = _LOOK_SECONDS if taken else min(2 * delay, _LONGEST_DELAY_SECONDS)

    def forward(self) -> bool:
        """Empty the queue now. False: the sink failed; the rest waits."""
        try:
            while batch := waiting(self._folders)[:_BATCH]:
                self._sink.take([path.read_bytes() for path in batch])
                for path in batch:
                    path.unlink()
                sync_folder(self._folders.queue)
                metrics.audit_forwarded(len(batch))
        except (OSError, NodeError) as error:
            if not self._failed:
                log("audit_waits", error=error)
            self._failed = True
            return False
        if self._failed:
            log("audit_goes_on")
        self._failed = False
        return True
