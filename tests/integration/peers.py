"""The other side: real DCMTK programs, peers that misbehave, and the node's receiver for them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from dicom_node.adapters.audit.witness import NoWitness
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlCommitments, SqlLedger, SqlPromises
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.adapters.quarantine import DiskQuarantine
from dicom_node.adapters.scu import Peer
from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.exam import Instance
from dicom_node.headers import read_identity
from dicom_node.ports import Clock
from dicom_node.scp.commitment import CommitmentProvider
from dicom_node.scp.port import listen
from dicom_node.scp.server import Receiver
from dicom_node.scp.witness import Witness
from dicom_node.settings import Settings
from dicom_node.stages.accept import Accept
from dicom_node.stages.commit import Commit
from dicom_node.tls import ContextSource

_DCMTK = Path("/usr/bin")  # pynetdicom installs programs of the same names into the environment
_POLL_SECONDS = 0.02


def dcmtk_program(name: str) -> str:
    """Path of a DCMTK program; skips the test where DCMTK is not installed."""
    found = shutil.which(name, path=str(_DCMTK))
    if found is None:
        pytest.skip(f"{name} of DCMTK is not installed in {_DCMTK}")
    return found


def dcmtk(name: str, *arguments: object, timeout_seconds: float = 120.0) -> str:
    """Run a DCMTK program; return its whole output after a line with its exit status.

    The exit status alone proves little: storescu and dcmsend exit 0 on failure statuses.
    """
    done = subprocess.run(
        [dcmtk_program(name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    return f"exit {done.returncode}\n{done.stdout}"


def wait_until(
    condition: Callable[[], bool], *, seconds: float = 20.0, poll: float = _POLL_SECONDS
) -> None:
    """Return when the condition holds; fail the test when it does not within the time. ``poll``:
    seconds between two looks."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not reached within {seconds} s")
        time.sleep(poll)


def open_files(pid: int) -> set[Path]:
    """What a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(entry.readlink())
    return found


def free_port() -> int:
    """A TCP port that nothing listens on, and that Linux gives to no client meanwhile: below
    ``net.ipv4.ip_local_port_range``, any of many, as tests run beside each other."""
    while True:
        port = 16_384 + secrets.randbelow(16_384)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """No eventfd can be made for the time of the block."""
    refused = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with patch("os.eventfd", side_effect=refused):
        yield


@dataclass(kw_only=True)
class RunningReceiver:
    """A receiver with a real spool and a real ledger."""

    receiver: Receiver
    spool: DiskSpool
    ledger: SqlLedger
    ledger_path: Path
    stored: list[int] = field(default_factory=list)
    """Exam ids in the order in which the receiver announced them."""

    @property
    def address(self) -> tuple[object, ...]:
        """Host and port as DCMTK's arguments."""
        return ("127.0.0.1", self.receiver.bound_port)

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port for a socket."""
        return ("127.0.0.1", self.receiver.bound_port)

    @property
    def instances(self) -> list[Instance]:
        """What the ledger holds."""
        return [self.ledger.exam(exam_id).instance for exam_id in dict.fromkeys(self.stored)]

    @property
    def incoming(self) -> list[Path]:
        """Temporary files."""
        return list(self.spool.incoming.iterdir())


@contextmanager
def file_system(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, mounted at ``folder`` with tmpfs options; skips where that is not
    allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def running_receiver(
    folder: Path,
    *,
    settings: Settings | None = None,
    listening: socket.socket | None = None,
    secure: tuple[socket.socket, ContextSource] | None = None,
    clock: Clock | None = None,
    witness: Witness | None = None,
) -> Iterator[RunningReceiver]:
    """Start a receiver, on a free port unless told otherwise; stop it and its ledger at the
    end."""
    settings, clock = settings or Settings(), clock or SystemClock()
    folder.mkdir()
    migrate(folder / "ledger.sqlite")
    ledger = SqlLedger(folder / "ledger.sqlite", clock)
    spool = DiskSpool(folder / "spool")
    commitments = SqlCommitments(folder / "ledger.sqlite", clock)
    promises = SqlPromises(folder / "ledger.sqlite", clock)
    stored: list[int] = []
    receiver = Receiver(
        settings,
        listening=listening or listen("127.0.0.1", 0),
        secure=secure,
        incoming=spool.incoming,
        accept=Accept(
            spool=spool,
            ledger=ledger,
            clock=clock,
            read_identity=read_identity,
            max_object_bytes=settings.receive.max_object_mb * 1_000_000,
        ),
        commitment=CommitmentProvider(
            promises=promises,
            commit=Commit(promises=promises, spool=spool, clock=clock),
            told=commitments.record_result,
        ),
        stored=stored.append,
        disk_used_percent=spool.usage_percent,
        witness=witness or NoWitness(),
        quarantine=DiskQuarantine(spool.incoming.parent / "quarantine"),
    )
    receiver.start()
    try:
        yield RunningReceiver(
            receiver=receiver,
            spool=spool,
            ledger=ledger,
            ledger_path=folder / "ledger.sqlite",
            stored=stored,
        )
    finally:
        receiver.stop()
        ledger.close()
        commitments.close()
        promises.close()


@contextmanager
def running_storescp(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """DCMTK's storescp, storing below ``folder``; yields its port once it listens."""
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    command = [dcmtk_program("storescp"), "-od", str(folder), *options, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(process.pid, port))
            yield port
        finally:
            process.kill()


def listens(pid: int, port: int) -> bool:
    """Whether the process listens, seen without connecting (state 0A in the kernel's table)."""
    table = Path(f"/proc/{pid}/net/tcp").read_text()
    return any(f":{port:04X} 00000000:0000 0A" in line for line in table.splitlines())


@contextmanager
def canned_peer(answer: bytes, *, close: bool = True) -> Iterator[int]:
    """Something that answers the first bytes of every connection with ``answer``; yields its
    port. Without ``close`` it keeps the connection and says no more."""
    kept: list[socket.socket] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            connection.recv(65536)
            connection.sendall(answer)
            kept.append(connection)
            if close:
                _close_after_reading(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


def _close_after_reading(connection: socket.socket) -> None:
    """End the connection without losing what was sent: to close it with anything unread would
    reset it."""
    connection.settimeout(5)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    connection.close()


@contextmanager
def cutting_proxy(port: int, *, after_bytes: int) -> Iterator[int]:
    """Passes one connection on to a local port and cuts it once the client has sent so much;
    yields its own port."""

    def serve(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server, limit=after_bytes)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def _pass_on(source: socket.socket, target: socket.socket, *, limit: int | None = None) -> None:
    passed = 0
    while limit is None or passed < limit:
        try:
            chunk = source.recv(65536 if limit is None else min(65536, limit - passed))
            target.sendall(chunk)
        except OSError:
            return
        if not chunk:
            return
        passed += len(chunk)


def association_rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0])
"""An A-ABORT PDU (PS3.8 9.3.8)."""


def taking(folder: Path, *sop_classes: str) -> list[str]:
    """Arguments for a storescp that takes these classes only, in Explicit VR Little Endian."""
    path = folder / "storescp.cfg"
    contexts = "".join(
        f"PresentationContext{number} = {sop_class}\\Plain\n"
        for number, sop_class in enumerate(sop_classes, 1)
    )
    path.write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LittleEndianExplicit\n"
        f"[[PresentationContexts]]\n[Some]\n{contexts}"
        "[[Profiles]]\n[Only]\nPresentationContexts = Some\n"
    )
    return ["-xf", str(path), "Only"]


def peer_at(port: int, ae_title: str = "ARCHIVE") -> Peer:
    """A peer on loopback."""
    return Peer(host="127.0.0.1", port=port, ae_title=ae_title)


def reset(connection: socket.socket) -> None:
    """Close at once, with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_connection(_peer: Peer, _timeout_seconds: float) -> socket.socket:
    """A connection whose peer's reset has come already."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        reset(accepted)
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    return connection
