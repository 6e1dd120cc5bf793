"""Orthanc as a PACS: a destination that one can ask, and a sender."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.peers import free_port, wait_until

PROGRAM = Path("/usr/sbin/Orthanc")
needs_orthanc = pytest.mark.skipif(not PROGRAM.exists(), reason="Orthanc is not installed")


class Orthanc:
    """A running Orthanc on loopback."""

    ae_title = "ORTHANC"

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port, self.http_port = dicom_port, http_port
        self.url = f"http://127.0.0.1:{http_port}"
        """Root of its REST interface."""

    def get(self, path: str) -> Any:
        """GET of its REST interface, as JSON."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def get_bytes(self, path: str) -> bytes:
        """GET of its REST interface, as bytes."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: bytes) -> Any:
        """POST to its REST interface, answer as JSON."""
        request = urllib.request.Request(self.url + path, data=body, method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def delete(self, path: str) -> None:
        """DELETE of its REST interface."""
        request = urllib.request.Request(self.url + path, method="DELETE")
        with urllib.request.urlopen(request, timeout=30):
            pass

    def reports(self) -> list[dict[str, Any]]:
        """Simplified tags of every stored SR instance."""
        series = [item for item in self.get("/series?expand") if _modality(item) == "SR"]
        return [
            self.get(f"/instances/{instance}/simplified-tags")
            for item in series
            for instance in item["Instances"]
        ]

    def count(self) -> int:
        """How many instances are stored."""
        return int(self.get("/statistics")["CountInstances"])


@contextmanager
def running_orthanc(
    folder: Path,
    *,
    node_port: int = 11112,
    plugins: Sequence[Path] = (),
    at: Orthanc | None = None,
) -> Iterator[Orthanc]:
    """Start Orthanc with a database below ``folder``; it knows the node as ``node``. ``at``: on the
    ports of one that ran before; else on free ones."""
    folder.mkdir(parents=True, exist_ok=True)
    orthanc = at or Orthanc(free_port(), free_port())
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin) for plugin in plugins],
        "DicomAet": Orthanc.ae_title,
        "DicomPort": orthanc.dicom_port,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "HttpPort": orthanc.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": False,
        "DicomModalities": {"node": ["BONEAGE", "127.0.0.1", node_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log
        )
        try:
            wait_until(lambda: _answers(orthanc), seconds=60)
            yield orthanc
        finally:
            process.terminate()
            process.wait(60)


def _answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except OSError:
        return False


def _modality(series: dict[str, Any]) -> str:
    return str(series["MainDicomTags"].get("Modality", ""))
