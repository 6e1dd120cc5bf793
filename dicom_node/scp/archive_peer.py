"""A small storage SCP that plays the PACS in ``dicom-node demo`` and in tests."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pynetdicom import AE, evt

from dicom_node.domain.receipt import StoreStatus
from dicom_node.scp.contexts import supported_contexts
from dicom_node.scp.guard import Limits, WaitingRoom
from dicom_node.scp.listener import Listener
from dicom_node.scp.port import listen
from dicom_node.stages.accept import is_valid_uid

_NETWORK_TIMEOUT_SECONDS = 60.0
_MAX_MESSAGE_BYTES = 2_000_000_000
_WAITING = 100


def _success(_sop_instance_uid: str) -> int:
    return StoreStatus.SUCCESS


class ArchivePeer:
    """Stores every object as ``<SOP Instance UID>.dcm`` below ``folder``; later ones replace
    earlier ones.

    ``answer``: SOP Instance UID to the C-STORE status; objects with a failure status are not
    stored.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ARCHIVE",
        bind: str = "127.0.0.1",
        port: int = 0,
        answer: Callable[[str], int] = _success,
    ) -> None:
        self._folder = folder
        self._answer = answer
        self._arrived: dict[str, float] = {}
        self._changed = threading.Condition()
        listening = listen(bind, port)
        self.ae_title = ae_title
        self.bound_port: int = listening.getsockname()[1]
        ae = AE(ae_title)
        ae.network_timeout = _NETWORK_TIMEOUT_SECONDS
        self._listener = Listener(
            ae,
            listening,
            handlers=(
                (evt.EVT_REQUESTED, _support_everything),
                (evt.EVT_C_ECHO, lambda _event: StoreStatus.SUCCESS.value),
                (evt.EVT_C_STORE, self._on_store),
            ),
            closed=lambda _association: None,
            limits=Limits(
                pdu_bytes=ae.maximum_pdu_size,
                message_bytes=_MAX_MESSAGE_BYTES,
                pdu_seconds=_NETWORK_TIMEOUT_SECONDS,
            ),
            waiting_room=WaitingRoom(places=_WAITING, places_of_peer=_WAITING),
        )

    def start(self) -> None:
        """Accept associations in background threads."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._listener.start()

    def stop(self) -> None:
        """Stop listening and abort what is open."""
        self._listener.close()
        for association in self._listener.active_associations:
            association.abort(block=False)

    @property
    def arrived(self) -> dict[str, float]:
        """SOP Instance UID to the monotonic time of its first arrival, in seconds."""
        with self._changed:
            return dict(self._arrived)

    def path(self, sop_instance_uid: str) -> Path:
        """Where an object is stored."""
        return self._folder / f"{sop_instance_uid}.dcm"

    def wait_for(self, count: int, timeout_seconds: float) -> bool:
        """Whether ``count`` different objects were stored within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._arrived) >= count, timeout_seconds)

    def _on_store(self, event: evt.Event) -> int:
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        if not is_valid_uid(uid):
            return StoreStatus.MISMATCH.value
        status = self._answer(uid)
        if status == StoreStatus.SUCCESS or status & 0xF000 == 0xB000:
            shutil.copyfile(event.dataset_path, self.path(uid))
            with self._changed:
                self._arrived.setdefault(uid, time.monotonic())
                self._changed.notify_all()
        return int(status)


def _support_everything(event: evt.Event) -> None:
    """Accept every storage class of the proposal."""
    primitive = event.assoc.requestor.primitive
    assert primitive is not None
    event.assoc.acceptor.supported_contexts = supported_contexts(
        primitive.presentation_context_definition_list
    )
