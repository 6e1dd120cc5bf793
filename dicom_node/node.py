"""The node as a whole: `dicom-node serve`. Prepares the data folder, then supervises."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dicom_node import __version__, metrics
from dicom_node.adapters.bell import EventBell
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.folders import Folders
from dicom_node.health import ADDRESS_FILE, address_of, ask_readiness
from dicom_node.logs import configure_logging, log
from dicom_node.processes import (
    DELIVERY_GRACE_SECONDS,
    RECEIVER_GRACE_SECONDS,
    WORKER_GRACE_SECONDS,
    Inherited,
    Role,
)
from dicom_node.pulse import Pulse
from dicom_node.scp.port import listen
from dicom_node.settings import Settings
from dicom_node.stopping import stop_event
from dicom_node.supervisor import ProcessSpec, Supervisor, leave_note

_LOCK_SECONDS = 100.0
"""Longer than the drain of the processes that a dead supervisor left behind."""
_ROLE_ORDER = {
    Role.RECEIVER: (0, RECEIVER_GRACE_SECONDS + 10),
    Role.WORKER: (1, WORKER_GRACE_SECONDS),
    Role.DELIVERY: (2, DELIVERY_GRACE_SECONDS),
}


def serve(settings: Settings, config: str | None) -> None:
    """Run the node until SIGTERM or SIGINT, then drain.

    Raises ``NodeError`` when the data folder cannot be used and ``OSError`` when a port is taken.
    """
    begun = time.monotonic()
    configure_logging("supervisor")
    keep_no_cores()
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    folders = Folders(root=settings.node.data_dir)
    with (
        locked(folders) as lock,
        _listen(settings.node.bind, settings.node.port) as listening,
        _listen_tls(settings) as listening_tls,
        _lifeline() as lifeline,
    ):
        metrics.clear(folders.metrics)
        prepared = EventBell()
        inherited = Inherited(
            listening=listening.fileno(),
            listening_tls=listening_tls.fileno() if listening_tls else -1,
            work_bell=EventBell().descriptor,
            delivery_bell=EventBell().descriptor,
            lifeline=lifeline,
            lock=lock,
            prepared=prepared.descriptor,
        )
        supervisor = Supervisor(
            _specs(settings, _kept_config(config, folders), inherited),
            run_dir=folders.run,
            ended=_note_end,
            draining=lambda: _close(listening, listening_tls),
        )
        with supervisor.first_begun():
            # Loaded from here on, beside the first processes: the network does not wait for it.
            from dicom_node.audit import audited_run
            from dicom_node.node_health import health_server
            from dicom_node.preparation import check_parts, prepare
            from dicom_node.wiring import Wiring

            wiring = Wiring(settings)
            model = check_parts(wiring)
            prepare(settings)
            metrics.activate(folders.metrics, "supervisor")
            health = health_server(wiring, supervisor, stop)
            with _naming(settings.node.bind, settings.node.metrics_port):
                health.start()
            port = listening.getsockname()[1]
            write_address(
                folders,
                port=port,
                metrics_port=health.bound_port,
                tls_port=listening_tls.getsockname()[1] if listening_tls else None,
            )
            log("node_started", version=__version__, port=port, seconds=time.monotonic() - begun)
            with audited_run(wiring, config, model):
                prepared.ring()
                supervisor.run(stop)
            health.stop()
    log("node_stopped", exit_code=0)


def keep_no_cores() -> None:
    """A crash of this process or of those that it starts leaves no core file: it would hold
    patients' images and names (setrlimit(2), RLIMIT_CORE)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def _lifeline() -> Iterator[int]:
    """Read end of a pipe whose other end nobody else holds."""
    lifeline, held = os.pipe2(os.O_CLOEXEC)
    try:
        yield lifeline
    finally:
        os.close(held)
        os.close(lifeline)


def _kept_config(config: str | None, folders: Folders) -> str | None:
    """A copy for the processes: one that starts again must not read what was edited meanwhile."""
    if config is None:
        return None
    return str(shutil.copyfile(config, folders.run / "node.toml"))


def _listen(bind: str, port: int) -> socket.socket:
    with _naming(bind, port):
        return listen(bind, port)


@contextmanager
def _listen_tls(settings: Settings) -> Iterator[socket.socket | None]:
    if settings.tls.port is None:
        yield None
        return
    with _listen(settings.node.bind, settings.tls.port) as listening:
        yield listening


def _close(*sockets: socket.socket | None) -> None:
    for listening in sockets:
        if listening is not None:
            listening.close()


@contextmanager
def _naming(bind: str, port: int) -> Iterator[None]:
    """Have the error say which address cannot be listened on."""
    try:
        yield
    except OSError as error:
        advice = "end the other program, correct bind, or choose another port (above 1023)"
        text = f"{os.strerror(error.errno or 0)}: {advice}"
        raise OSError(error.errno, text, f"{bind}:{port}") from error


def write_address(
    folders: Folders, *, port: int, metrics_port: int, tls_port: int | None = None
) -> None:
    """Leave a note of where the node listens, for people and programs: ``run/node.json``."""
    note = {"pid": os.getpid(), "port": port, "metrics_port": metrics_port}
    if tls_port is not None:
        note["tls_port"] = tls_port
    leave_note(folders.run / ADDRESS_FILE, json.dumps(note))


def read_address(folders: Folders) -> dict[str, int]:
    """The note of :func:`write_address`: ``pid``, ``port``, ``metrics_port`` and, with TLS,
    ``tls_port``.

    Raises ``OSError`` when no node has run there.
    """
    return address_of(folders.run)


def _specs(settings: Settings, config: str | None, inherited: Inherited) -> list[ProcessSpec]:
    counts = {
        Role.RECEIVER: settings.receive.processes,
        Role.WORKER: settings.inference.workers,
        Role.DELIVERY: 1,
    }
    return [
        _spec(role, f"{role.value}-{index}", config, inherited)
        for role, count in counts.items()
        for index in range(count)
    ]


def _spec(role: Role, name: str, config: str | None, inherited: Inherited) -> ProcessSpec:
    order, grace_seconds = _ROLE_ORDER[role]
    pulse = Pulse()
    inherited = replace(inherited, pulse=pulse.descriptor)
    return ProcessSpec(
        name=name,
        command=_command(config, role, name, inherited),
        inherited=inherited.descriptors(),
        pulse=pulse,
        drain_order=order,
        grace_seconds=grace_seconds,
    )


def _command(config: str | None, role: Role, name: str, inherited: Inherited) -> tuple[str, ...]:
    """The command line that runs a process (``run_process``) in a fresh interpreter."""
    handed = ",".join(str(descriptor) for descriptor in inherited.numbers())
    command = (sys.executable, "-m", "dicom_node", "process", role.value, name, handed)
    return (*command, "--config", config) if config else command


def _note_end(name: str) -> None:
    metrics.process_restarted(name)
    metrics.forget_process(name)


@contextmanager
def locked(folders: Folders) -> Iterator[int]:
    """One node per data folder; waits for the processes of a predecessor that died."""
    try:
        folders.run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE,
            f"the data folder {folders.root} cannot be made ({error.strerror}): "
            "set node.data_dir to a folder that this user may write",
        ) from error
    descriptor = os.open(folders.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_lock(descriptor, folders)
        for file in folders.run.glob("*.ready"):
            file.unlink()
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, folders: Folders) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() > deadline:
            raise Transient(
                Fault.STORAGE_UNAVAILABLE,
                f"another node, or one that still drains, uses the data folder {folders.root}: "
                "stop it, or set node.data_dir to another folder",
            )
        time.sleep(0.1)


def is_running(folders: Folders) -> bool:
    """Whether a node on this machine holds the data folder."""
    try:
        descriptor = os.open(folders.run / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def readiness(settings: Settings) -> dict[str, Any]:
    """The running node's own answer to /readyz; ``{"status": "not running"}`` without one."""
    return ask_readiness(Folders(root=settings.node.data_dir).run, settings.node.bind)
