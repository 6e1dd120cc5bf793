"""HAProxy in front of a region's nodes, on the configuration that `deploy/central` ships."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.peers import free_port, wait_until

PROGRAM = Path("/usr/sbin/haproxy")
CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "central" / "haproxy.cfg"
needs_haproxy = pytest.mark.skipif(not PROGRAM.exists(), reason="HAProxy is not installed")

BALANCER = "127.0.0.9"
"""The address that the nodes see: all of 127.0.0.0/8 is loopback."""


@contextmanager
def running_haproxy(
    folder: Path,
    nodes: dict[str, tuple[int, int]],
    *,
    senders: str = "127.0.0.0/8",
    configuration: Path = CONFIGURATION,
) -> Iterator[int]:
    """Balance ``NODE_A`` and ``NODE_B``, each a DICOM port and a health port on loopback; yields
    the port that senders call."""
    port = free_port()
    environment = {"BIND": f"127.0.0.1:{port}", "SENDERS": senders, "SOURCE": BALANCER}
    for name, (dicom_port, health_port) in nodes.items():
        environment |= {name: f"127.0.0.1:{dicom_port}", f"{name}_HEALTH": str(health_port)}
    with (folder / "haproxy.log").open("ab") as log:
        process = subprocess.Popen(
            [str(PROGRAM), "-db", "-f", str(configuration)],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _listens(port: int) -> bool:
    """Seen without connecting (state 0A in the kernel's table)."""
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()
