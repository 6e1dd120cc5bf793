"""A region's PACS, which can be taken away and comes back with what it had."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from tests.integration.peers import free_port, running_storescp
from tests.peers.invariants import stored_in
from tests.peers.orthanc import Orthanc, running_orthanc


class Pacs(ABC):
    """Runs between :meth:`start` and :meth:`stop`, always on the same port and folder."""

    ae_title: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.port = free_port()

    def start(self) -> None:
        """Run it, with what it has stored before."""
        self._stack.enter_context(self._run())

    def stop(self) -> None:
        """End it: connections are refused from now on."""
        self._stack.close()

    @abstractmethod
    def _run(self) -> AbstractContextManager[object]:
        """Runs it for the time of a block."""

    @abstractmethod
    def studies(self) -> int:
        """How many studies it holds, as far as is known while it is away: each exam of the map is a
        study of its own."""

    @abstractmethod
    def objects(self) -> Counter[str]:
        """SOP Instance UIDs of all that it holds, and how often."""


class StorescpPacs(Pacs):
    """DCMTK's storescp, with a folder for each study."""

    ae_title = "STORESCP"

    def _run(self) -> AbstractContextManager[object]:
        return running_storescp(self._folder, "-su", "study", port=self.port)

    def studies(self) -> int:
        """Folders on the disk."""
        return sum(1 for _ in self._folder.iterdir()) if self._folder.exists() else 0

    def objects(self) -> Counter[str]:
        """Read from the files."""
        studies = sorted(self._folder.iterdir())
        return sum((stored_in(study) for study in studies), Counter[str]())


class OrthancPacs(Pacs):
    """Orthanc."""

    ae_title = Orthanc.ae_title

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._orthanc = Orthanc(self.port, free_port())
        self._studies = 0

    def _run(self) -> AbstractContextManager[object]:
        return running_orthanc(self._folder, at=self._orthanc)

    def studies(self) -> int:
        """From its statistics."""
        with suppress(OSError):
            self._studies = int(self._orthanc.get("/statistics")["CountStudies"])
        return self._studies

    def objects(self) -> Counter[str]:
        """From its index."""
        instances = self._orthanc.get("/instances?expand")
        return Counter(item["MainDicomTags"]["SOPInstanceUID"] for item in instances)
