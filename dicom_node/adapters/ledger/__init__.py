"""The local database of states and results: SQLite through SQLAlchemy Core."""

from dicom_node.adapters.ledger.commitments import SqlCommitments, SqlPromises
from dicom_node.adapters.ledger.ledger import SqlLedger
from dicom_node.adapters.ledger.outbox import SqlOutbox
from dicom_node.adapters.ledger.queries import OperatorLedger
from dicom_node.adapters.ledger.retention import SqlObjectRecords

__all__ = [
    "OperatorLedger",
    "SqlCommitments",
    "SqlLedger",
    "SqlObjectRecords",
    "SqlOutbox",
    "SqlPromises",
]
