"""Both sides of Storage Commitment: a sender that asks, and the settings of a node that answers."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import ComputedRadiographyImageStorage  # type: ignore[attr-defined]

from dicom_node.commitment import PUSH_MODEL
from dicom_node.settings import (
    DestinationSettings,
    InstitutionSettings,
    NodeSettings,
    ReceiveSettings,
    Settings,
)

PACS = "PACS"
"""AE title of a destination that commits."""

STRICT = Settings(
    node=NodeSettings(ae_title="BONEAGE"),
    receive=ReceiveSettings(require_known_sender=True),
    institutions=(
        InstitutionSettings(
            id="a",
            name="A",
            calling_ae_titles=("MODALITY", "MUTE"),
            storage_commitment={"MODALITY": ""},
        ),
        InstitutionSettings(id="b", name="B", calling_ae_titles=("OTHER",)),
    ),
    destinations=(
        DestinationSettings(
            name="pacs", ae_title=PACS, host="127.0.0.1", port=104, storage_commitment=True
        ),
    ),
)
"""Two institutions, of which one may ask, and a destination that commits."""


def reference(uid: str, sop_class: str = ComputedRadiographyImageStorage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    return item


def status_of(answer: Dataset) -> int | None:
    status: int | None = answer.get("Status")
    return status


class Modality:
    """A sender that wants commitment; it listens for results where ``listens``."""

    def __init__(self, ae_title: str = "MODALITY", *, listens: int | None = None) -> None:
        self.told: list[tuple[int | None, Dataset]] = []
        self._ae = AE(ae_title)
        self._ae.add_requested_context(PUSH_MODEL, ExplicitVRLittleEndian)
        self._ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
        self._server = None
        if listens is not None:
            accepting = AE(ae_title)
            accepting.add_supported_context(
                PUSH_MODEL, ExplicitVRLittleEndian, scu_role=True, scp_role=True
            )
            self._server = accepting.start_server(
                ("127.0.0.1", listens), block=False, evt_handlers=self._handlers
            )

    @property
    def _handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._on_event)]

    def _on_event(self, event: evt.Event) -> tuple[int, None]:
        self.told.append((event.event_type, event.event_information))
        return 0x0000, None

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def associate(self, port: int) -> Association:
        return self._ae.associate(
            "127.0.0.1", port, ae_title="BONEAGE", evt_handlers=self._handlers
        )

    def kept(self) -> list[str]:
        return [
            str(item.ReferencedSOPInstanceUID)
            for _, said in self.told
            for item in said.get("ReferencedSOPSequence", [])
        ]

    def failed(self) -> list[tuple[str, int]]:
        return [
            (str(item.ReferencedSOPInstanceUID), int(item.FailureReason))
            for _, said in self.told
            for item in said.get("FailedSOPSequence", [])
        ]
