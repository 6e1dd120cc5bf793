"""C-STORE SCU for reports: one association per destination, kept open while there is work."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, product

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom.association import Association

from dicom_node.adapters.scu.association import (
    KeptAssociation,
    Peer,
    accepted_pairs,
    contexts_for,
    open_association,
)
from dicom_node.domain.delivery import (
    NOTHING_DELIVERED,
    SOP_CLASS_NOT_SUPPORTED,
    SOP_CLASSES,
    Answer,
    ReportKind,
    ReportObject,
)
from dicom_node.domain.errors import Fault, Permanent, Transient
from sr_templates.uids import derived_uid

REPORT_CLASSES: tuple[str, ...] = tuple(dict.fromkeys(chain(*SOP_CLASSES.values())))
"""SOP classes that the node proposes to a destination."""

REPORT_PAIRS: tuple[tuple[str, str], ...] = (
    *product(REPORT_CLASSES, (ExplicitVRLittleEndian, ImplicitVRLittleEndian)),
    *((sop_class, JPEGBaseline8Bit) for sop_class in SOP_CLASSES[ReportKind.CAPTURE]),
)
"""With the transfer syntaxes of each."""


@dataclass(frozen=True, kw_only=True)
class DestinationAddress:
    """A configured PACS. ``timeout_seconds`` holds for connecting and for every answer;
    ``fast_path``: the association's threads wait (``waiting.py``)."""

    name: str
    peer: Peer
    timeout_seconds: float
    fast_path: bool = True


class DicomReportSender:
    """Sends report objects to configured destinations. Safe to use from several threads."""

    def __init__(
        self, destinations: Sequence[DestinationAddress], *, calling_ae_title: str
    ) -> None:
        self._lines = {
            destination.name: _Line(destination, calling_ae_title) for destination in destinations
        }

    def send(
        self,
        destination: str,
        report: ReportObject,
        delivered: Mapping[str, Answer] = NOTHING_DELIVERED,
    ) -> Answer:
        """Send one object (PS3.4 B) as the first of its SOP classes that the peer accepts.

        As another class it is another instance: its UID follows from the object's own and the
        class, so it is the same one every time. What it replaces is named as the peer has it, by
        ``delivered``: SOP Instance UID, as made, to the peer's answer.

        Raises ``Transient`` (DESTINATION_UNAVAILABLE) when no answer came: the object may be stored
        or not, and its UID makes sending again harmless; ``Permanent`` (DESTINATION_REFUSED) when
        the peer rejects the association for good or accepts no class at all, ``Permanent``
        (DESTINATION_UNKNOWN) for a name that is not configured.
        """
        line = self._lines.get(destination)
        if line is None:
            raise Permanent(
                Fault.DESTINATION_UNKNOWN,
                f"destination {destination} is not configured: add it under [[destinations]]",
            )
        return line.send(report, delivered)

    def answers(self, destination: str) -> bool:
        """Whether a configured destination takes an association, or says why it does not."""
        return self._lines[destination].answers()

    def close(self) -> None:
        """Release every open association."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The way to one destination."""

    def __init__(self, destination: DestinationAddress, calling_ae_title: str) -> None:
        self._peer = destination.peer
        self._name = destination.name
        self._timeout_seconds = float(destination.timeout_seconds)
        self._fast_path = destination.fast_path
        self._calling_ae_title = calling_ae_title
        self._kept = KeptAssociation(self._open)
        self._lock = threading.Lock()

    def send(self, report: ReportObject, delivered: Mapping[str, Answer]) -> Answer:
        """Send on the open association; when it turns out to be dead, once more on a new one."""
        with self._lock:
            kept = self._kept.current()
            answer = self._store(kept, report, delivered) if kept else None
            if answer is None:
                answer = self._store(self._kept.renew(), report, delivered)
        if answer is None:
            raise Transient(
                Fault.DESTINATION_UNAVAILABLE,
                f"destination {self._name} ({self._peer}) did not answer the C-STORE: "
                "it is tried again",
            )
        return answer

    def answers(self) -> bool:
        """Open an association, which the next object uses."""
        with self._lock:
            try:
                self._kept.renew()
            except Transient:
                return False
            except Permanent:
                return True
        return True

    def close(self) -> None:
        """Release the association, if there is one."""
        with self._lock:
            self._kept.release()

    def _open(self) -> Association:
        return open_association(
            self._peer,
            contexts_for(REPORT_PAIRS),
            calling_ae_title=self._calling_ae_title,
            timeout_seconds=self._timeout_seconds,
            waits=self._fast_path,
        )

    def _store(
        self, association: Association, report: ReportObject, delivered: Mapping[str, Answer]
    ) -> Answer | None:
        """The peer's answer, None when none came."""
        dataset = _as_accepted(report, accepted_pairs(association))
        if dataset is None:
            return Answer(
                status=SOP_CLASS_NOT_SUPPORTED,
                sent_sop_class_uid=report.sop_class_uid,
                sent_sop_instance_uid=report.sop_instance_uid,
            )
        _name_replaced(dataset, delivered)
        try:
            answer = association.send_c_store(dataset)
        except RuntimeError:  # the association ended since it was looked at
            return None
        self._kept.used()
        status = answer.get("Status")
        if status is None:
            return None
        return Answer(
            status=int(status),
            sent_sop_class_uid=str(dataset.SOPClassUID),
            sent_sop_instance_uid=str(dataset.SOPInstanceUID),
        )


def _as_accepted(report: ReportObject, accepted: frozenset[tuple[str, str]]) -> Dataset | None:
    """The object as the first of its SOP classes that is accepted, None when none is; a picture
    without compression where that is not accepted."""
    classes = {sop_class for sop_class, _ in accepted}
    chosen = next((uid for uid in _classes(report) if uid in classes), None)
    if chosen is None:
        return None
    dataset = pydicom.dcmread(BytesIO(report.encoded))
    if chosen != report.sop_class_uid:
        dataset.SOPInstanceUID = derived_uid(dataset.SOPInstanceUID, chosen)
        dataset.SOPClassUID = chosen
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and (chosen, str(syntax)) not in accepted:
        dataset.decompress(generate_instance_uid=False)
    return dataset


def _name_replaced(dataset: Dataset, delivered: Mapping[str, Answer]) -> None:
    """Refer to replaced documents (PS3.3 C.17.2.1) as the peer has them, which may be as another
    SOP class than they were made in."""
    for study in dataset.get("PredecessorDocumentsSequence", []):
        for series in study.ReferencedSeriesSequence:
            for replaced in series.ReferencedSOPSequence:
                answer = delivered.get(replaced.ReferencedSOPInstanceUID)
                if answer is not None:
                    replaced.ReferencedSOPClassUID = answer.sent_sop_class_uid
                    replaced.ReferencedSOPInstanceUID = answer.sent_sop_instance_uid


def _classes(report: ReportObject) -> tuple[str, ...]:
    others = (uid for uid in SOP_CLASSES[report.kind] if uid != report.sop_class_uid)
    return (report.sop_class_uid, *others)
