"""The receiver: takes custody of what comes over the network."""

from __future__ import annotations

import socket
import threading

from dicom_node.adapters.bell import EventBell
from dicom_node.domain.commitment import CommitmentResult
from dicom_node.headers import read_identity
from dicom_node.logs import log
from dicom_node.processes import RECEIVER_GRACE_SECONDS, Inherited
from dicom_node.processes.start import all_is_loaded, begin, say_ready
from dicom_node.pulse import Heart
from dicom_node.scp.commitment import CommitmentProvider
from dicom_node.scp.server import Receiver
from dicom_node.settings import Settings
from dicom_node.stages.accept import Accept
from dicom_node.tls import ContextSource
from dicom_node.wiring import Wiring


def run(settings: Settings, name: str, inherited: Inherited, stop: threading.Event) -> None:
    """Receive until ``stop`` is set; then drain."""
    wiring = begin(settings, name)
    Heart(inherited.pulse)
    bell = EventBell(inherited.work_bell)
    accept = Accept(
        spool=wiring.spool,
        ledger=wiring.ledger,
        clock=wiring.clock,
        read_identity=read_identity,
        max_object_bytes=wiring.settings.receive.max_object_mb * 1_000_000,
    )
    delivery_bell = EventBell(inherited.delivery_bell)

    def told(result: CommitmentResult) -> bool:
        asked = wiring.commitments.record_result(result)
        delivery_bell.ring()
        return asked

    receiver = Receiver(
        wiring.settings,
        listening=socket.socket(fileno=inherited.listening),
        secure=_secure(wiring, inherited),
        incoming=wiring.spool.incoming_of(name),
        accept=accept,
        commitment=CommitmentProvider(promises=wiring.promises, commit=wiring.commit, told=told),
        stored=lambda _: bell.ring(),
        disk_used_percent=wiring.spool.usage_percent,
        witness=wiring.witness(name),
        quarantine=wiring.quarantine,
    )
    all_is_loaded()
    receiver.start()
    say_ready(wiring, name)
    stop.wait()
    log("drain_started")
    log("drain_finished", count=receiver.drain(RECEIVER_GRACE_SECONDS))


def _secure(wiring: Wiring, inherited: Inherited) -> tuple[socket.socket, ContextSource] | None:
    if wiring.certificates is None or inherited.listening_tls < 0:
        return None
    return socket.socket(fileno=inherited.listening_tls), wiring.certificates.server
