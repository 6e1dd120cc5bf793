"""How a node begins: its receivers load while it prepares, and take nothing before it has."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.folders import Folders
from dicom_node.node import _command
from dicom_node.preparation import prepare
from dicom_node.processes import Inherited, Role
from dicom_node.scp.port import listen
from dicom_node.settings import load_settings
from dicom_node.supervisor import ready_path
from tests.integration.peers import wait_until
from tests.peers.node import begin_node, write_config


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A receiver whose supervisor is still preparing: this test."""

    process: subprocess.Popen[bytes]
    prepared: int
    alive: int
    ready: Path

    def has_loaded(self) -> bool:
        """Whether its libraries are there, of which sqlite is the last."""
        return "pynetdicom" in self._maps() or "_sqlite3" in self._maps()

    def _maps(self) -> str:
        return Path(f"/proc/{self.process.pid}/maps").read_text()


@contextmanager
def waiting_receiver(folder: Path) -> Iterator[Waiting]:
    config = write_config(folder, [])
    folders = Folders(root=load_settings(config).node.data_dir)
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
                process=process,
                prepared=bells[2],
                alive=alive,
                ready=ready_path(folders.run, "receiver-0"),
            )
        finally:
            process.kill()
            process.wait()


def test_a_receiver_touches_nothing_before_the_data_folder_is_prepared(tmp_path: Path) -> None:
    with waiting_receiver(tmp_path) as receiver:
        wait_until(receiver.has_loaded, seconds=60)
        settings = load_settings(tmp_path / "node.toml")
        folders = Folders(root=settings.node.data_dir)
        assert not folders.ledger.exists()
        assert not folders.spool.exists()
        assert not receiver.ready.exists()
        prepare(settings)
        os.eventfd_write(receiver.prepared, 1)
        wait_until(receiver.ready.exists, seconds=60)
        assert receiver.process.poll() is None
        os.close(receiver.alive)


def test_a_receiver_ends_where_its_supervisor_could_not_prepare(tmp_path: Path) -> None:
    with waiting_receiver(tmp_path) as receiver:
        wait_until(receiver.has_loaded, seconds=60)
        os.close(receiver.alive)
        assert receiver.process.wait(30) == 0
        assert not receiver.ready.exists()


def test_a_node_that_cannot_start_says_why_and_leaves_no_process_behind(tmp_path: Path) -> None:
    config = write_config(tmp_path, [])
    config.write_text(config.read_text() + '\n[inference]\nmodel = "no-such-model"\n')
    node = begin_node(tmp_path)
    assert node.process.wait(60) == 1
    log = (tmp_path / "node.log").read_text()
    assert "no-such-model" in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    [receiver] = [line["pid"] for line in lines if line["event"] == "process_started"]
    wait_until(lambda: not Path(f"/proc/{receiver}").exists(), seconds=30)
    assert not any(line["event"] == "association_accepted" for line in lines)
