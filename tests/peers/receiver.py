"""The node's receiving processes without the rest of it, as the supervisor would start them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_node.folders import Folders
from dicom_node.node import _command
from dicom_node.preparation import prepare
from dicom_node.processes import Inherited, Role
from dicom_node.scp.port import listen
from dicom_node.settings import Settings, load_settings
from dicom_node.supervisor import ready_path
from tests.integration.peers import wait_until
from tests.peers.node import write_config


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """Receivers of one data folder, whose supervisor the test is."""

    settings: Settings
    port: int
    running: list[subprocess.Popen[bytes]]
    ready: list[Path]
    """The note that each of them leaves when it does its work."""
    prepared: int
    """The eventfd that they wait for."""
    lifeline: BinaryIO
    """Closed, the supervisor has died."""

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self.running]

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.node.data_dir


@contextmanager
def running_receivers(
    folder: Path, *, processes: int = 1, receive: str = ""
) -> Iterator[Receivers]:
    """So many receivers on one listening socket; ``receive``: lines of that section."""
    with begun_receivers(folder, processes=processes, receive=receive) as receivers:
        prepare(receivers.settings)
        os.eventfd_write(receivers.prepared, 1)
        wait_until(lambda: all(note.exists() for note in receivers.ready))
        yield receivers


@contextmanager
def begun_receivers(folder: Path, *, processes: int = 1, receive: str = "") -> Iterator[Receivers]:
    """As :func:`running_receivers`, where the data folder is not yet prepared."""
    config = write_config(folder, [], extra=f"[receive]\nprocesses = {processes}\n{receive}")
    settings = load_settings(config)
    folders = Folders(root=settings.node.data_dir)
    folders.metrics.mkdir(parents=True)
    with ExitStack() as stack:
        listening = stack.enter_context(listen("127.0.0.1", 0))
        lifeline, alive = os.pipe()
        held = stack.enter_context(os.fdopen(alive, "wb"))
        work_bell, delivery_bell, prepared = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
        lock = os.open(folders.run / "lock", os.O_RDWR | os.O_CREAT)
        for descriptor in (lifeline, lock, work_bell, delivery_bell, prepared):
            stack.callback(os.close, descriptor)
        inherited = Inherited(
            listening=listening.fileno(),
            listening_tls=-1,
            work_bell=work_bell,
            delivery_bell=delivery_bell,
            lifeline=lifeline,
            lock=lock,
            prepared=prepared,
        )
        names = [f"receiver-{number}" for number in range(processes)]
        running = [
            subprocess.Popen(
                _command(str(config), Role.RECEIVER, name, inherited),
                pass_fds=inherited.descriptors(),
                stderr=stack.enter_context((folder / f"{name}.log").open("wb")),
            )
            for name in names
        ]
        try:
            yield Receivers(
                settings=settings,
                port=listening.getsockname()[1],
                running=running,
                ready=[ready_path(folders.run, name) for name in names],
                prepared=prepared,
                lifeline=held,
            )
        finally:
            for process in running:
                process.kill()
                process.wait()
