"""The audit trail on disk: recorded durably, then kept in files or sent to a repository."""

from dicom_node.adapters.audit.forwarder import AuditForwarder
from dicom_node.adapters.audit.log_files import LogFiles
from dicom_node.adapters.audit.message import Origin
from dicom_node.adapters.audit.parties import application, operator
from dicom_node.adapters.audit.reading import AuditEntry, read_entries
from dicom_node.adapters.audit.syslog import Syslog
from dicom_node.adapters.audit.trail import AuditFolders, DiskTrail, NoTrail, waiting
from dicom_node.adapters.audit.witness import DeliveryWitness, NoWitness, ReceiverWitness

__all__ = [
    "AuditEntry",
    "AuditFolders",
    "AuditForwarder",
    "DeliveryWitness",
    "DiskTrail",
    "LogFiles",
    "NoTrail",
    "NoWitness",
    "Origin",
    "ReceiverWitness",
    "Syslog",
    "application",
    "operator",
    "read_entries",
    "waiting",
]
