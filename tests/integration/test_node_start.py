"""How a node begins: its receivers load while it prepares, and take nothing before it has."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from pathlib import Path

from dicom_node.folders import Folders
from dicom_node.preparation import prepare
from dicom_node.scp.port import listen
from tests.builders.pdus import association_request
from tests.integration.peers import free_port, wait_until
from tests.peers.held import cpu_seconds_of
from tests.peers.node import begin_node, write_config
from tests.peers.receiver import begun_receivers


def wait_until_it_waits(pid: int) -> None:
    """Until a process has loaded and takes no processor time any more."""
    used, quiet_since = 0.0, time.monotonic()
    while time.monotonic() - quiet_since < 1.0 or used < 0.1:
        now = cpu_seconds_of(pid)
        if now > used + 0.015:  # one tick of the kernel's clock may always come
            used, quiet_since = now, time.monotonic()
        time.sleep(0.1)


def answers(peer: socket.socket, seconds: float) -> bool:
    return bool(select.select([peer], [], [], seconds)[0])


def test_a_receiver_touches_nothing_before_the_data_folder_is_prepared(tmp_path: Path) -> None:
    with begun_receivers(tmp_path) as receivers:
        wait_until_it_waits(receivers.pids[0])
        folders = Folders(root=receivers.data)
        with socket.create_connection(("127.0.0.1", receivers.port), timeout=60) as peer:
            peer.sendall(association_request())
            assert not answers(peer, 1.0)
            assert not folders.ledger.exists()
            assert not folders.spool.exists()
            assert not receivers.ready[0].exists()
            prepare(receivers.settings)
            assert not answers(peer, 0.5)
            os.eventfd_write(receivers.prepared, 1)
            assert answers(peer, 60.0)
            assert peer.recv(1) == b"\x02"  # A-ASSOCIATE-AC, PS3.8 9.3.3
        wait_until(receivers.ready[0].exists, seconds=60)


def test_a_receiver_ends_where_its_supervisor_has_died(tmp_path: Path) -> None:
    with begun_receivers(tmp_path) as receivers:
        wait_until_it_waits(receivers.pids[0])
        receivers.lifeline.close()
        assert receivers.running[0].wait(2.5) == 0  # before it is ended as an orphan
        assert not receivers.ready[0].exists()


def test_a_node_that_cannot_start_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, [])
    text = config.read_text().replace("port = 0", f"port = {port}", 1)
    config.write_text(f'{text}\n[inference]\nmodel = "no-such-model"\n')
    node = begin_node(tmp_path)
    assert node.process.wait(60) == 1
    log = (tmp_path / "node.log").read_text()
    assert "no-such-model" in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    [receiver] = [line["pid"] for line in lines if line["event"] == "process_started"]
    assert not Path(f"/proc/{receiver}").exists()
    listen("127.0.0.1", port).close()  # nobody holds it any more
