"""How a node begins: its receivers load while it prepares, and take nothing before it has."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.folders import Folders
from dicom_node.node import _command
from dicom_node.preparation import prepare
from dicom_node.processes import Inherited, Role
from dicom_node.scp.port import listen
from dicom_node.settings import Settings, load_settings
from dicom_node.supervisor import ready_path
from tests.builders.pdus import association_request
from tests.integration.peers import free_port, wait_until
from tests.peers.node import begin_node, write_config


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A receiver whose supervisor is still preparing: this test."""

    settings: Settings
    port: int
    process: subprocess.Popen[bytes]
    prepared: int
    alive: int
    ready: Path

    def wait_until_it_waits(self) -> None:
        """Until it has loaded and takes no processor time any more."""
        before, quiet_since = 0, time.monotonic()
        while time.monotonic() - quiet_since < 1.0 or before < 50:  # half a second in clock ticks
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            if ticks > before + 1:
                before, quiet_since = ticks, time.monotonic()
            time.sleep(0.1)


@contextmanager
def waiting_receiver(folder: Path) -> Iterator[Waiting]:
    config = write_config(folder, [])
    settings = load_settings(config)
    folders = Folders(root=settings.node.data_dir)
    folders.run.mkdir(parents=True)
    folders.metrics.mkdir(parents=True)
    with ExitStack() as stack:
        listening = stack.enter_context(listen("127.0.0.1", 0))
        lifeline, alive = os.pipe()
        bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
        lock = os.open(folders.run / "lock", os.O_RDWR | os.O_CREAT)
        for descriptor in (lifeline, lock, *bells):
            stack.callback(os.close, descriptor)
        inherited = Inherited(
            listening=listening.fileno(),
            listening_tls=-1,
            work_bell=bells[0],
            delivery_bell=bells[1],
            prepared=bells[2],
            lifeline=lifeline,
            lock=lock,
        )
        process = subprocess.Popen(
            _command(str(config), Role.RECEIVER, "receiver-0", inherited),
            pass_fds=inherited.descriptors(),
            stderr=stack.enter_context((folder / "receiver.log").open("wb")),
        )
        try:
            yield Waiting(
                settings=settings,
                port=listening.getsockname()[1],
                process=process,
                prepared=bells[2],
                alive=alive,
                ready=ready_path(folders.run, "receiver-0"),
            )
        finally:
            process.kill()
            process.wait()


def answers(peer: socket.socket, seconds: float) -> bool:
    return bool(select.select([peer], [], [], seconds)[0])


def test_a_receiver_touches_nothing_before_the_data_folder_is_prepared(tmp_path: Path) -> None:
    with waiting_receiver(tmp_path) as receiver:
        receiver.wait_until_it_waits()
        folders = Folders(root=receiver.settings.node.data_dir)
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=60) as peer:
            peer.sendall(association_request())
            assert not answers(peer, 1.0)
            assert not folders.ledger.exists()
            assert not folders.spool.exists()
            assert not receiver.ready.exists()
            prepare(receiver.settings)
            assert not answers(peer, 0.5)
            os.eventfd_write(receiver.prepared, 1)
            assert answers(peer, 60.0)
            assert peer.recv(1) == b"\x02"  # A-ASSOCIATE-AC, PS3.8 9.3.3
        wait_until(receiver.ready.exists, seconds=60)
        os.close(receiver.alive)


def test_a_receiver_ends_where_its_supervisor_has_died(tmp_path: Path) -> None:
    with waiting_receiver(tmp_path) as receiver:
        receiver.wait_until_it_waits()
        os.close(receiver.alive)
        assert receiver.process.wait(2.5) == 0  # before it is ended as an orphan
        assert not receiver.ready.exists()


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
