"""No process of a node leaves a core file: it would hold patients' images and names."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.peers.node import running_node, write_config


def test_no_process_of_a_node_writes_a_core_file(tmp_path: Path) -> None:
    write_config(tmp_path / "node", [])
    with running_node(tmp_path / "node") as node:
        processes = [node.process.pid, *node.children(), *node.decoders()]
        assert len(processes) >= 1 + 4 + 2
        limits = {resource.prlimit(pid, resource.RLIMIT_CORE) for pid in processes}
    assert limits == {(0, 0)}
