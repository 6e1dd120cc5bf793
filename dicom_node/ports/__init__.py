"""What the stages need from the outside world: small Protocols, one adapter each."""

from dicom_node.ports.centre import (
    Backlog,
    CentralArchive,
    CentralNames,
    ExamPseudonyms,
    Forwardable,
    Outbox,
)
from dicom_node.ports.commitment import (
    Commitments,
    DeliveryVerifier,
    Holding,
    Promises,
)
from dicom_node.ports.node import (
    AuditTrail,
    Clock,
    Eligibility,
    HeaderReader,
    JournalEntry,
    KeptObject,
    Ledger,
    PredictionRequest,
    Predictor,
    Quarantine,
    Reporter,
    ReportRequest,
    ReportSender,
    Spool,
)

__all__ = [
    "AuditTrail",
    "Backlog",
    "CentralArchive",
    "CentralNames",
    "Clock",
    "Commitments",
    "DeliveryVerifier",
    "Eligibility",
    "ExamPseudonyms",
    "Forwardable",
    "HeaderReader",
    "Holding",
    "JournalEntry",
    "KeptObject",
    "Ledger",
    "Outbox",
    "PredictionRequest",
    "Predictor",
    "Promises",
    "Quarantine",
    "ReportRequest",
    "ReportSender",
    "Reporter",
    "Spool",
]
