"""What the C-STORE of a report takes on the association that the node keeps open, beside a stock
pynetdicom requestor, to DCMTK's storescp and to Orthanc.

`make bench` runs it and writes `build/benchmarks/delivery.json`. Three ways take turns on objects
of their own: the node's sender, pynetdicom on an association that stays open, and pynetdicom with
a new association for each object, as in its samples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from statistics import median
from uuid import uuid4

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from rich.console import Console
from rich.table import Table

import inference
from dicom_node.adapters.reporter import SrReporter
from dicom_node.adapters.scu.report_sender import DestinationAddress, DicomReportSender
from dicom_node.domain.delivery import ReportObject
from tests.builders.reports import assessment, prior, radiograph, request_for
from tests.integration.peers import peer_at, running_storescp
from tests.peers.orthanc import needs_orthanc, running_orthanc

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600), needs_orthanc]

RESULT = Path(inference.__file__).parent.parent / "build" / "benchmarks" / "delivery.json"
ROUNDS = 30
KEPT, STOCK, ANEW = "the node, kept open", "pynetdicom, kept open", "pynetdicom, one for each"

Send = Callable[[ReportObject], object]


@contextmanager
def peers(folder: Path) -> Iterator[dict[str, int]]:
    """Ports by name."""
    with (
        running_storescp(folder / "storescp", "--fork") as storescp,  # one process for each way
        running_orthanc(folder / "orthanc") as orthanc,
    ):
        yield {"storescp": storescp, "Orthanc": orthanc.dicom_port}


@contextmanager
def ways(port: int) -> Iterator[dict[str, Send]]:
    """What sends an object, by its name."""
    address = DestinationAddress(name="peer", peer=peer_at(port), timeout_seconds=30.0)
    sender = DicomReportSender([address], calling_ae_title="BENCH")
    kept = stock(port)

    def anew(report: ReportObject) -> object:
        association = stock(port)
        status = association.send_c_store(dcmread(BytesIO(report.encoded)))
        association.release()
        return status

    yield {
        KEPT: lambda report: sender.send("peer", report),
        STOCK: lambda report: kept.send_c_store(dcmread(BytesIO(report.encoded))),
        ANEW: anew,
    }
    kept.release()
    sender.close()


def stock(port: int) -> Association:
    """An association as pynetdicom makes it."""
    ae = AE()
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.88.34", ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", port)


def another(report: ReportObject) -> ReportObject:
    """The same object under a UID of its own: archives do less for one that they have."""
    dataset = dcmread(BytesIO(report.encoded))
    dataset.SOPInstanceUID = f"2.25.{uuid4().int}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    with BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        return replace(report, sop_instance_uid=dataset.SOPInstanceUID, encoded=file.getvalue())


def test_a_report_is_sent_as_fast_as_an_open_association_allows(tmp_path: Path) -> None:
    finding = assessment(priors=(prior(113.0),))
    request = request_for(tmp_path / "received.dcm", radiograph(), finding)
    measurements = SrReporter().build(request)[0]
    figures: dict[str, dict[str, float]] = {}
    with peers(tmp_path) as found:
        for name, port in found.items():
            times: dict[str, list[float]] = {way: [] for way in (KEPT, STOCK, ANEW)}
            with ways(port) as sending:
                for _ in range(ROUNDS):
                    for way, send in sending.items():
                        report = another(measurements)
                        begun = time.perf_counter()
                        send(report)
                        times[way].append((time.perf_counter() - begun) * 1000)
            figures[name] = {way: median(taken) for way, taken in times.items()}

    table = Table("way", *figures, title="one report, ms")
    for way in (KEPT, STOCK, ANEW):
        table.add_row(way, *(f"{figures[name][way]:.1f}" for name in figures))
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for name, taken in figures.items():
        assert taken[KEPT] < taken[STOCK] * 1.3, name
        assert taken[KEPT] < taken[ANEW], name
