"""The audit trail on disk: recorded durably, then kept in files or sent to a repository.

What is seen of objects (`witness.py`) is not loaded here: it brings pydicom.
"""

from dicom_node.adapters.audit.forwarder import AuditForwarder
from dicom_node.adapters.audit.log_files import LogFiles
from dicom_node.adapters.audit.message import Origin
from dicom_node.adapters.audit.parties import application, operator
from dicom_node.adapters.audit.reading import AuditEntry, read_entries
from dicom_node.adapters.audit.syslog import Syslog
from dicom_node.adapters.audit.trail import AuditFolders, DiskTrail, NoTrail, waiting

__all__ = [
    "AuditEntry",
    "AuditFolders",
    "AuditForwarder",
    "DiskTrail",
    "LogFiles",
    "NoTrail",
    "Origin",
    "Syslog",
    "application",
    "operator",
    "read_entries",
    "waiting",
]
