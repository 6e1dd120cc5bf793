"""Where a node keeps its things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_node.adapters.audit import AuditFolders


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a node keeps its things, below the data folder."""

    root: Path

    @property
    def ledger(self) -> Path:
        """The ledger's database file."""
        return self.root / "ledger.sqlite"

    @property
    def spool(self) -> Path:
        """Received objects."""
        return self.root / "spool"

    @property
    def quarantine(self) -> Path:
        """Refused objects, for a person."""
        return self.spool / "quarantine"

    @property
    def keys(self) -> Path:
        """Secrets of this node."""
        return self.root / "keys"

    @property
    def audit(self) -> AuditFolders:
        """The audit trail."""
        return AuditFolders(root=self.root / "audit")

    @property
    def run(self) -> Path:
        """What the running node says about itself: lock, ports, readiness."""
        return self.root / "run"

    @property
    def metrics(self) -> Path:
        """Metric values that the processes share."""
        return self.root / "run" / "metrics"
