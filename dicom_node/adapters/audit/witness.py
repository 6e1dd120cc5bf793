"""What receiver and delivery see, as messages of the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_node.adapters.audit.arrivals import Arrivals
from dicom_node.domain import audit
from dicom_node.domain.audit import Application, Arrival, Peer, Subject
from dicom_node.domain.delivery import ReportObject
from dicom_node.domain.errors import Permanent
from dicom_node.headers import read_subject, subject_in
from dicom_node.ports import AuditTrail, Clock


class NoWitness:
    """Sees nothing: for a node without audit."""

    def refused(self, peer: Peer, why: str) -> None:
        """Nothing is told."""

    def arrived(
        self,
        association: object,
        peer: Peer,
        sop_class_uid: str,
        *,
        content_sha256: str | None,
        refused: Path | None,
    ) -> None:
        """Nothing is told."""

    def ended(self, association: object) -> None:
        """Nothing is told."""


class ReceiverWitness:
    """Tells the trail what one receiver process sees; ``folder`` belongs to that process alone.
    ``kept``: the file of a content's SHA-256.

    What an earlier process of the same name left in the folder is recorded first.
    """

    def __init__(
        self,
        trail: AuditTrail,
        folder: Path,
        *,
        kept: Callable[[str], Path],
        application: Application,
        clock: Clock,
    ) -> None:
        self._trail = trail
        self._kept = kept
        self._application = application
        self._clock = clock
        self._open: dict[object, Path] = {}
        self._arrivals = Arrivals(folder, whose=self._whose, transferred=self._transferred)
        self._arrivals.recover()

    def refused(self, peer: Peer, why: str) -> None:
        """A Security Alert, Node Authentication."""
        self._trail.record(audit.peer_refused(peer, why, self._application, self._clock.now()))

    def arrived(
        self,
        association: object,
        peer: Peer,
        sop_class_uid: str,
        *,
        content_sha256: str | None,
        refused: Path | None,
    ) -> None:
        """Note an object on disk, before it is answered. Whose it is, is read later where it is
        kept, and now where it will be gone."""
        if association not in self._open:
            self._open[association] = self._arrivals.begin()
        notes = self._open[association]
        if content_sha256 is not None:
            self._arrivals.kept(notes, peer, sop_class_uid, content_sha256)
        else:
            subject = read_subject(refused) if refused else Subject()
            self._arrivals.refused(notes, peer, sop_class_uid, subject)

    def ended(self, association: object) -> None:
        """DICOM Instances Transferred, for each study of the association."""
        notes = self._open.pop(association, None)
        if notes is not None:
            self._arrivals.end(notes)

    def _whose(self, content_sha256: str) -> Subject:
        try:
            return read_subject(self._kept(content_sha256))
        except Permanent:  # it is not there any more
            return Subject()

    def _transferred(self, arrivals: list[Arrival]) -> bool:
        messages = audit.received(arrivals, self._application, self._clock.now())
        return all(self._trail.record(message) for message in messages)


class DeliveryWitness:
    """Tells the trail what went to the destinations; ``peer``: one of them by its name."""

    def __init__(
        self,
        trail: AuditTrail,
        *,
        application: Application,
        clock: Clock,
        peer: Callable[[str], Peer],
    ) -> None:
        self._trail = trail
        self._application = application
        self._clock = clock
        self._peer = peer

    def __call__(
        self, destination: str, report: ReportObject, sop_classes: Sequence[str], *, refused: bool
    ) -> None:
        """DICOM Instances Transferred: objects of these classes, of one report, to a
        destination."""
        self._trail.record(
            audit.sent(
                subject_in(report.encoded),
                sop_classes,
                self._application,
                self._peer(destination),
                self._clock.now(),
                refused=refused,
            )
        )
