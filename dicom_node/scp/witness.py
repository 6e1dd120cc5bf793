"""What a receiver tells the audit trail of: a Protocol, whose adapter is in `adapters/audit/`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dicom_node.domain.audit import Peer


class Witness(Protocol):
    """Tells the audit trail what a receiver sees. No method raises."""

    def refused(self, peer: Peer, why: str) -> None:
        """A peer may not associate; ``why`` is a constant text."""

    def arrived(
        self,
        association: object,
        peer: Peer,
        sop_class_uid: str,
        *,
        content_sha256: str | None,
        refused: Path | None,
    ) -> None:
        """An object is about to be answered. ``content_sha256``: under which it is kept; without
        one it is ``refused``, and what was received of it may lie there."""

    def ended(self, association: object) -> None:
        """An association ended: what it brought is recorded."""
