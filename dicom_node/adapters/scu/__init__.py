"""The node as a DICOM client: it sends reports and exams and tests connections."""

from dicom_node.adapters.scu.association import Peer
from dicom_node.adapters.scu.echo import diagnose
from dicom_node.adapters.scu.exam_sender import Load, Sent, send_files, send_load
from dicom_node.adapters.scu.report_sender import DestinationAddress, DicomReportSender

__all__ = [
    "DestinationAddress",
    "DicomReportSender",
    "Load",
    "Peer",
    "Sent",
    "diagnose",
    "send_files",
    "send_load",
]
