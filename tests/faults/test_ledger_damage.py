"""A ledger whose file is damaged: the node says what to do, and that brings everything back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.adapters.scu.exam_sender import send_files
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import running_storescp
from tests.peers.invariants import check_fates, check_rest, check_stopped, stored_in
from tests.peers.node import Node, running_node, write_config

PAGE_BYTES = 4096


def wrong_header(content: bytes) -> bytes:
    return b"\0" * 16 + content[16:]


def wrong_page(content: bytes) -> bytes:
    """One byte: the kind of a b-tree page."""
    return content[:PAGE_BYTES] + b"\x77" + content[PAGE_BYTES + 1 :]


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // PAGE_BYTES // 2 * PAGE_BYTES]


def run(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicom_node", *arguments, "--config", str(node.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("damage", [wrong_header, wrong_page, cut_short])
def test_a_damaged_ledger_is_refused_with_advice_that_helps(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    files = radiograph_files(tmp_path / "sent", 4)
    with running_storescp(tmp_path / "pacs") as port:
        write_config(tmp_path / "node", [("pacs", "PACS", port)])
        with running_node(tmp_path / "node") as node:
            sent = send_files(files, node.peer, calling_ae_title="MODALITY")
            assert all(item.status == 0x0000 for item in sent)
            node.wait_until_idle(60)
            before = stored_in(tmp_path / "pacs")
            check_fates(node, files, before)
        data = node.settings.node.data_dir
        ledger = data / "ledger.sqlite"
        ledger.write_bytes(damage(ledger.read_bytes()))

        refused = run(node, "serve")
        assert refused.returncode == 1
        assert "is damaged" in refused.stderr
        assert "Traceback" not in refused.stderr
        found = {check["name"]: check for check in json.loads(run(node, "doctor", "--json").stdout)}
        assert found["ledger"]["status"] == "failed"
        assert "is damaged" in found["ledger"]["found"]

        aside = tmp_path / "aside"
        aside.mkdir()
        for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
            assert name in refused.stderr
            if (data / name).exists():
                (data / name).rename(aside / name)
        with running_node(tmp_path / "node") as node:
            node.wait_until_idle(60)
            after = stored_in(tmp_path / "pacs")
            assert check_fates(node, files, after).reported == len(files)
            assert after == before, "the same objects, under the same UIDs"
            check_rest(node, restarts=0)
    check_stopped(node)
