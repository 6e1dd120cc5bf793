"""The node's receiving processes without the rest of it, as the supervisor would start them."""

from __future__ import annotations

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
from tests.peers.node import write_config


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """Running receivers of one data folder."""

    port: int
    pids: list[int]
    data: Path


@contextmanager
def running_receivers(
    folder: Path, *, processes: int = 1, receive: str = ""
) -> Iterator[Receivers]:
    """So many receivers on one listening socket; ``receive``: lines of that section."""
    config = write_config(folder, [], extra=f"[receive]\nprocesses = {processes}\n{receive}")
    settings = load_settings(config)
    folders = Folders(root=settings.node.data_dir)
    folders.metrics.mkdir(parents=True)
    prepare(settings)
    with ExitStack() as stack:
        listening = stack.enter_context(listen("127.0.0.1", 0))
        lifeline, alive = os.pipe()
        bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        prepared = os.eventfd(1, os.EFD_NONBLOCK)
        lock = os.open(folders.run / "lock", os.O_RDWR | os.O_CREAT)
        for descriptor in (lifeline, alive, lock, prepared, *bells):
            stack.callback(os.close, descriptor)
        inherited = Inherited(
            listening=listening.fileno(),
            listening_tls=-1,
            work_bell=bells[0],
            delivery_bell=bells[1],
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
            wait_until(lambda: all(ready_path(folders.run, name).exists() for name in names))
            yield Receivers(
                port=listening.getsockname()[1],
                pids=[process.pid for process in running],
                data=folders.root,
            )
        finally:
            for process in running:
                process.kill()
                process.wait()
