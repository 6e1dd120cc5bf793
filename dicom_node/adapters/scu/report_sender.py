"""C-STORE SCU for reports: one association per destination, kept open while there is work."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from dicom_node.adapters.scu.association import (
    Peer,
    accepted_pairs,
    contexts_for,
    open_association,
    uid_name,
)
from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.errors import Fault, Permanent, Transient

REPORT_CLASSES: tuple[str, ...] = (
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
)
"""SOP classes that the node proposes to a destination, each in Explicit and Implicit VR Little
Endian."""

REPORT_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (sop_class, syntax)
    for sop_class in REPORT_CLASSES
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
)
_IDLE_SECONDS = 10.0
"""After so long without work the association is released."""
_MARGIN_SECONDS = 2.0
"""Shortly before that moment it is not used any more: the release may be on its way."""


@dataclass(frozen=True, kw_only=True)
class DestinationAddress:
    """A configured PACS. ``timeout_seconds`` holds for connecting and for every answer."""

    name: str
    ae_title: str
    host: str
    port: int
    timeout_seconds: float


class DicomReportSender:
    """Sends report objects to configured destinations. Safe to use from several threads."""

    def __init__(
        self, destinations: Sequence[DestinationAddress], *, calling_ae_title: str
    ) -> None:
        self._lines = {
            destination.name: _Line(destination, calling_ae_title) for destination in destinations
        }

    def send(self, destination: str, report: ReportObject) -> int:
        """Send one object (PS3.4 B); return the status (0000,0900) of the response.

        Raises ``Transient`` (DESTINATION_UNAVAILABLE) when no answer came: the object may be
        stored or not, and its UID makes sending again harmless; ``Permanent``
        (DESTINATION_REFUSED) when the peer rejects the association for good or does not accept the
        SOP class, ``Permanent`` (DESTINATION_UNKNOWN) for a name that is not configured.
        """
        line = self._lines.get(destination)
        if line is None:
            raise Permanent(
                Fault.DESTINATION_UNKNOWN,
                f"destination {destination} is not configured: add it under [[destinations]]",
            )
        return line.send(report)

    def close(self) -> None:
        """Release every open association."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The way to one destination."""

    def __init__(self, destination: DestinationAddress, calling_ae_title: str) -> None:
        self._peer = Peer(
            host=destination.host, port=destination.port, ae_title=destination.ae_title
        )
        self._name = destination.name
        self._timeout_seconds = float(destination.timeout_seconds)
        self._calling_ae_title = calling_ae_title
        self._association: Association | None = None
        self._used_at = 0.0
        self._lock = threading.Lock()

    def send(self, report: ReportObject) -> int:
        """Send on the open association; when it turns out to be dead, once more on a new one."""
        dataset = pydicom.dcmread(BytesIO(report.encoded))
        with self._lock:
            kept = self._kept_association()
            status = self._store(kept, dataset) if kept else None
            if status is None:
                status = self._store(self._open(), dataset)
        if status is None:
            raise Transient(
                Fault.DESTINATION_UNAVAILABLE,
                f"destination {self._name} ({self._peer}) did not answer the C-STORE: "
                "it is tried again",
            )
        return status

    def close(self) -> None:
        """Release the association, if there is one."""
        with self._lock:
            if self._association is not None:
                self._association.release()
                self._association = None

    def _kept_association(self) -> Association | None:
        fresh = time.monotonic() - self._used_at < _IDLE_SECONDS - _MARGIN_SECONDS
        kept = self._association
        return kept if kept is not None and kept.is_established and fresh else None

    def _open(self) -> Association:
        self._association = None
        association = open_association(
            self._peer,
            contexts_for(REPORT_PAIRS),
            calling_ae_title=self._calling_ae_title,
            timeout_seconds=self._timeout_seconds,
        )
        association.network_timeout = _IDLE_SECONDS
        association.network_timeout_response = "A-RELEASE"
        self._association = association
        return association

    def _store(self, association: Association, dataset: Dataset) -> int | None:
        """Status of the response, None when none came."""
        self._check_accepted(association, str(dataset.SOPClassUID))
        try:
            answer = association.send_c_store(dataset)
        except RuntimeError:  # the association ended since it was looked at
            return None
        self._used_at = time.monotonic()
        status = answer.get("Status")
        return None if status is None else int(status)

    def _check_accepted(self, association: Association, sop_class_uid: str) -> None:
        if not any(sop_class == sop_class_uid for sop_class, _ in accepted_pairs(association)):
            raise Permanent(
                Fault.DESTINATION_REFUSED,
                f"destination {self._name} ({self._peer}) does not accept "
                f"{uid_name(sop_class_uid)}: configure it there",
            )
