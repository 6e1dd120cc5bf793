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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dicom_node import __version__, metrics
from dicom_node.adapters.audit import waiting
from dicom_node.adapters.bell import EventBell
from dicom_node.adapters.ledger import OperatorLedger, SqlOutbox
from dicom_node.adapters.ledger.migrate import check_integrity, migrate
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.audit import audited_model, audited_run
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.domain.exam import UNKNOWN_SENDER, Instance, Receipt
from dicom_node.folders import Folders
from dicom_node.headers import read_identity
from dicom_node.health import ADDRESS_FILE, HealthServer, address_of, ask_readiness
from dicom_node.logs import configure_logging, log
from dicom_node.processes import (
    DELIVERY_GRACE_SECONDS,
    RECEIVER_GRACE_SECONDS,
    WORKER_GRACE_SECONDS,
    Inherited,
    Role,
)
from dicom_node.pulse import Pulse
from dicom_node.scp.listener import listen
from dicom_node.scp.policy import LOCAL_INSTITUTION
from dicom_node.settings import Settings
from dicom_node.stopping import stop_event
from dicom_node.supervisor import ProcessSpec, Supervisor, leave_note
from dicom_node.wiring import Wiring

_LOCK_SECONDS = 100.0
"""Longer than the drain of the processes that a dead supervisor left behind."""
_SILENT_LOOP_SECONDS = 10.0
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
    ):
        wiring = Wiring(settings)
        _check_parts(wiring)
        prepare(settings)
        metrics.clear(folders.metrics)
        metrics.activate(folders.metrics, "supervisor")
        lifeline, held = os.pipe2(os.O_CLOEXEC)
        inherited = Inherited(
            listening=listening.fileno(),
            listening_tls=listening_tls.fileno() if listening_tls else -1,
            work_bell=EventBell().descriptor,
            delivery_bell=EventBell().descriptor,
            lifeline=lifeline,
            lock=lock,
        )
        supervisor = Supervisor(
            _specs(settings, _kept_config(config, folders), inherited),
            run_dir=folders.run,
            ended=_note_end,
            draining=lambda: _close(listening, listening_tls),
        )
        health = _health_server(wiring, supervisor, stop)
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
        with audited_run(wiring, config):
            supervisor.run(stop)
        os.close(held)
        health.stop()
    log("node_stopped", exit_code=0)


def keep_no_cores() -> None:
    """A crash of this process or of those that it starts leaves no core file: it would hold
    patients' images and names (setrlimit(2), RLIMIT_CORE)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check_parts(wiring: Wiring) -> None:
    """Refuse to start on a model or reference table that no process could use."""
    load_reference_table(wiring.settings.inference.reference)
    audited_model(wiring)
    if wiring.certificates is not None:
        wiring.certificates.server()


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


def prepare(settings: Settings) -> None:
    """Bring the data folder to the state that the processes expect: migrated ledger, no partial
    files, a row for every kept object, no job that a process holds which is dead, and the keys of
    the institutions' pseudonyms where there is a centre."""
    folders = Folders(root=settings.node.data_dir)
    check_integrity(folders.ledger)
    revision = migrate(folders.ledger)
    log("ledger_migrated", version=revision)
    wiring = Wiring(settings)
    wiring.ledger.expire_all_leases()
    _enter_orphans(wiring)
    if wiring.centre is not None:
        known = (LOCAL_INSTITUTION, *(item.id for item in settings.institutions))
        wiring.central_pseudonyms.prepare(known)


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


def _enter_orphans(wiring: Wiring) -> None:
    """A crash between the spool and the ledger leaves an object that was never acknowledged."""
    operator = OperatorLedger(wiring.folders.ledger, wiring.clock)
    orphans = sorted(wiring.spool.sweep() - operator.known_contents())
    operator.close()
    entered = sum(_enter_orphan(wiring, content_sha256) for content_sha256 in orphans)
    if entered:
        log("orphan_entered", count=entered)
    wiring.ledger.close()


def _enter_orphan(wiring: Wiring, content_sha256: str) -> bool:
    path = wiring.spool.path(content_sha256)
    try:
        identity = read_identity(path)
    except NodeError:
        return False  # never acknowledged and unreadable: it stays for a person to look at
    _, receipt = wiring.ledger.record_instance(
        Instance(
            sop_class_uid=identity.sop_class_uid,
            sop_instance_uid=identity.sop_instance_uid,
            transfer_syntax_uid=identity.transfer_syntax_uid,
            content_sha256=content_sha256,
            size_bytes=path.stat().st_size,
            calling_ae_title=UNKNOWN_SENDER,
            peer_address=UNKNOWN_SENDER,
            institution_id=_institution_of_orphans(wiring.settings),
            received_at=wiring.clock.now(),
        )
    )
    return receipt is not Receipt.DUPLICATE


def _institution_of_orphans(settings: Settings) -> str:
    """Whose an object must be, where only one answer is possible."""
    if not settings.institutions:
        return LOCAL_INSTITUTION
    [first, *others] = settings.institutions
    only = settings.receive.require_known_sender and not others
    return first.id if only else UNKNOWN_SENDER


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


def _health_server(wiring: Wiring, supervisor: Supervisor, stop: threading.Event) -> HealthServer:
    settings, folders = wiring.settings, wiring.folders
    operator = OperatorLedger(folders.ledger, wiring.clock)
    outbox = wiring.outbox if wiring.centre else None

    def processes() -> str | None:
        waiting = [child.spec.name for child in supervisor.children if not child.is_ready()]
        return f"not ready: {', '.join(waiting)}" if waiting else None

    def disk() -> str | None:
        percent = wiring.spool.usage_percent()
        limit = settings.receive.high_water_percent
        return f"{percent:.0f} % used, the limit is {limit} %" if percent >= limit else None

    def ledger() -> str | None:
        operator.queue_depths()
        return None

    def draining() -> str | None:
        return "the node is stopping" if stop.is_set() else None

    def live() -> str | None:
        silent = time.monotonic() - supervisor.turned_at
        return f"the supervisor is silent for {silent:.0f} s" if _silent(silent, stop) else None

    return HealthServer(
        port=settings.node.metrics_port,
        bind=settings.node.bind,
        checks={"processes": processes, "disk": disk, "ledger": ledger, "draining": draining},
        live=live,
        metrics=lambda: metrics.exposition(lambda: _reading(folders, operator, outbox)),
    )


def _silent(seconds: float, stop: threading.Event) -> bool:
    return seconds > _SILENT_LOOP_SECONDS and not stop.is_set()


def _reading(
    folders: Folders, operator: OperatorLedger, outbox: SqlOutbox | None
) -> metrics.Reading:
    usage = shutil.disk_usage(folders.root)
    return metrics.Reading(
        jobs=operator.queue_depths(),
        oldest_job_seconds=operator.oldest_job_seconds(),
        oldest_parked_job_seconds=operator.oldest_parked_job_seconds(),
        audit_waiting=len(waiting(folders.audit)),
        disk_used_bytes=usage.used,
        disk_size_bytes=usage.total,
        backlog=outbox.backlog() if outbox else None,
    )


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
