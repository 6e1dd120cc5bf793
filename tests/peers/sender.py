"""The node's sender of reports, and objects for it."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.adapters.scu import DestinationAddress, DicomReportSender, Peer
from dicom_node.domain.delivery import ReportKind, ReportObject
from dicom_node.domain.errors import NodeError
from tests.builders.dicom_files import hand_dataset
from tests.builders.report_objects import report_object

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


def report(
    sop_class_uid: str = COMPREHENSIVE_3D_SR,
    *,
    kind: ReportKind = ReportKind.MEASUREMENTS,
    replaces: str | None = None,
) -> ReportObject:
    dataset = hand_dataset(SOPClassUID=sop_class_uid)
    if replaces is not None:
        dataset.PredecessorDocumentsSequence = [replaced(sop_class_uid, replaces)]
    return report_object(dataset, kind)


def replaced(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = sop_class_uid
    instance.ReferencedSOPInstanceUID = sop_instance_uid
    series.SeriesInstanceUID = "2.25.1"
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = "2.25.2"
    study.ReferencedSeriesSequence = [series]
    return study


def sender_to(port: int, *, timeout_seconds: float = 10.0) -> DicomReportSender:
    address = DestinationAddress(
        name="pacs",
        peer=Peer(host="127.0.0.1", port=port, ae_title="PACS"),
        timeout_seconds=timeout_seconds,
    )
    return DicomReportSender([address], calling_ae_title="BONEAGE")


def failure(port: int, *, timeout_seconds: float = 10.0) -> NodeError:
    sender = sender_to(port, timeout_seconds=timeout_seconds)
    with pytest.raises(NodeError) as caught:
        sender.send("pacs", report())
    sender.close()
    return caught.value
