"""The receiver: one application entity on a shared listening socket."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pynetdicom
from pynetdicom import AE

from dicom_node import waiting
from dicom_node.domain.audit import Peer
from dicom_node.logs import log
from dicom_node.ports import Quarantine
from dicom_node.scp.commitment import CommitmentProvider
from dicom_node.scp.guard import Limits, WaitingRoom
from dicom_node.scp.handlers import Reception
from dicom_node.scp.listener import Listener
from dicom_node.scp.pace import Pace
from dicom_node.scp.policy import Policy
from dicom_node.scp.witness import Witness
from dicom_node.settings import ReceiveSettings, Settings
from dicom_node.stages.accept import Accept
from dicom_node.tls import ContextSource

_NETWORK_TIMEOUT_SECONDS = 60.0
"""Silence after which an open association is aborted."""
_ACSE_TIMEOUT_SECONDS = 15.0
"""Silence after which a connection without an association is closed."""
_PDU_SECONDS = 15.0
"""From the first byte of a PDU to its last."""
_ABORT_SECONDS = 5.0
_MIN_WAITING, _MIN_WAITING_OF_PEER = 40, 8
"""Connections without an association."""


class Receiver:
    """C-ECHO and C-STORE SCP of this process (PS3.4 A and B).

    ``listening`` comes from :func:`dicom_node.scp.port.listen` and is owned by the receiver;
    other processes may listen on duplicates of it; so does the socket of ``secure``, where TLS is
    spoken. ``incoming`` is the spool's folder for
    unfinished files: while the receiver runs it is this process's folder for temporary files.
    ``stored`` is called with the exam's id after each stored object. ``witness`` is told what the
    audit trail must hold. ``quarantine`` keeps what cannot be understood.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket,
        secure: tuple[socket.socket, ContextSource] | None = None,
        incoming: Path,
        accept: Accept,
        commitment: CommitmentProvider,
        stored: Callable[[int], None],
        disk_used_percent: Callable[[], float],
        witness: Witness,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._incoming = incoming
        self._previous_tempdir = tempfile.tempdir
        self._reception = Reception(
            policy=Policy(settings),
            accept=accept,
            commitment=commitment,
            stored=stored,
            disk_used_percent=disk_used_percent,
            witness=witness,
            quarantine=quarantine,
            pace=Pace(
                {i.id: i.images_per_minute for i in settings.institutions if i.images_per_minute}
            ),
        )
        self.bound_port: int = listening.getsockname()[1]
        receive = settings.receive
        room = WaitingRoom(
            places=max(_MIN_WAITING, receive.max_associations),
            places_of_peer=max(_MIN_WAITING_OF_PEER, receive.max_associations_per_peer),
        )
        fast = receive.fast_path and waiting.is_usable()
        if receive.fast_path and not fast:
            log("fast_path_off", version=pynetdicom.__version__)
        self._listeners = [
            Listener(
                _application_entity(settings),
                port,
                handlers=self._reception.events,
                closed=self._reception.closed,
                limits=_limits(receive),
                waiting_room=room,
                fast=fast,
                tls=tls,
                untrusted=lambda peer: witness.refused(
                    Peer(ae_title="", address=peer), "TLS handshake failed"
                ),
            )
            for port, tls in ((listening, None), *([secure] if secure else []))
        ]

    def start(self) -> None:
        """Accept associations in background threads."""
        self._previous_tempdir = tempfile.tempdir
        tempfile.tempdir = str(self._incoming)
        for listener in self._listeners:
            listener.start()

    @property
    def open_associations(self) -> int:
        """How many admitted associations have not ended."""
        return len(self._reception.open_associations)

    def drain(self, grace_seconds: float) -> int:
        """Take no new associations, let the open ones finish, abort those that outlast the grace
        time; return how many were aborted.

        An object in work at the abort is either unanswered or safe: its sender may send it again.
        """
        self._reception.begin_drain()
        for listener in self._listeners:
            listener.close()
        self._reception.wait_until_idle(grace_seconds)
        late = self._reception.open_associations
        for association in late:
            association.abort(block=False)
        self._reception.wait_until_idle(_ABORT_SECONDS)
        tempfile.tempdir = self._previous_tempdir
        return len(late)

    def stop(self) -> int:
        """Drain without grace time."""
        return self.drain(0.0)


def _limits(receive: ReceiveSettings) -> Limits:
    """An object that is somewhat too large is received and refused with a status; one of twice
    the size is cut off."""
    return Limits(
        pdu_bytes=receive.max_pdu_kb * 1024,
        message_bytes=2 * receive.max_object_mb * 1_000_000,
        pdu_seconds=_PDU_SECONDS,
    )


def _application_entity(settings: Settings) -> AE:
    ae = AE(settings.node.ae_title)
    ae.maximum_pdu_size = settings.receive.max_pdu_kb * 1024
    ae.network_timeout = _NETWORK_TIMEOUT_SECONDS
    ae.dimse_timeout = _NETWORK_TIMEOUT_SECONDS
    ae.acse_timeout = _ACSE_TIMEOUT_SECONDS
    return ae
