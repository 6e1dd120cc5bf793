"""What open associations have brought, on disk: a receiver that dies takes no message with it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicom_node import metrics
from dicom_node.domain.audit import Arrival, Peer, Subject
from dicom_node.logs import log


class Arrivals:
    """One file for each open association of a receiver below ``folder``, one line for each object.

    ``whose`` says study and patient of a kept object, by its content's SHA-256. ``transferred`` is
    called with an association's arrivals when it has ended, and says whether they are recorded.
    Lines are not synced: a killed process loses none, a power cut those of the last seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        whose: Callable[[str], Subject],
        transferred: Callable[[list[Arrival]], bool],
    ) -> None:
        self._folder = folder
        self._whose = whose
        self._transferred = transferred
        self._numbers = itertools.count()

    def recover(self) -> None:
        """Record what an earlier process of this name left when it died."""
        for left in sorted(self._folder.glob("*.jsonl")):
            self.end(left)

    def begin(self) -> Path:
        """The file of an association; it is made with the first object."""
        return self._folder / f"{next(self._numbers)}.jsonl"

    def kept(self, association: Path, peer: Peer, sop_class_uid: str, content_sha256: str) -> None:
        """Note an object that is kept. It raises nothing: a log line and a metric say that this
        failed."""
        self._add(association, peer, sop_class_uid, content_sha256=content_sha256)

    def refused(self, association: Path, peer: Peer, sop_class_uid: str, subject: Subject) -> None:
        """Note an object that is not kept. It raises nothing, as :meth:`kept`."""
        self._add(association, peer, sop_class_uid, subject=asdict(subject))

    def _add(self, association: Path, peer: Peer, sop_class_uid: str, **more: object) -> None:
        values = {"ae_title": peer.ae_title, "address": peer.address, "class": sop_class_uid}
        line = json.dumps(values | more) + "\n"
        try:
            try:
                _append(association, line)
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _append(association, line)
        except OSError as error:
            _lost(error)

    def end(self, association: Path) -> None:
        """Record what an association brought; when that fails, it is tried again at the next
        start."""
        try:
            arrivals = self._arrivals(association)
            if not arrivals or self._transferred(arrivals):
                association.unlink(missing_ok=True)
        except OSError as error:
            _lost(error)

    def _arrivals(self, association: Path) -> list[Arrival]:
        try:
            lines = association.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(self._arrival(json.loads(line)))
            except ValueError as error:  # cut off by the end of a process or a full disk, damaged
                _lost(error)
        return found

    def _arrival(self, values: dict[str, Any]) -> Arrival:
        stored = "content_sha256" in values
        return Arrival(
            peer=Peer(ae_title=values["ae_title"], address=values["address"]),
            subject=self._whose(values["content_sha256"])
            if stored
            else Subject(**values["subject"]),
            sop_class_uid=values["class"],
            stored=stored,
        )


def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(line)


def _lost(error: Exception) -> None:
    log("audit_failed", error=error)
    metrics.audit_failed()
