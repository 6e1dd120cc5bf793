"""Custody: what is answered with success is kept and recorded, in this order; the rest is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.exam import Instance, Receipt
from dicom_node.domain.receipt import Acceptance, StoreStatus
from dicom_node.headers import read_identity
from dicom_node.ports import Ledger
from dicom_node.stages.accept import Accept, is_valid_uid
from tests.builders.dicom_files import hand_dataset, write_file
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger

UID = "1.2.826.0.1.7"
CLASS = str(hand_dataset().SOPClassUID)
MAX_OBJECT_BYTES = 1_000_000


class BrokenLedger(InMemoryLedger):
    """A database that cannot commit."""

    def record_instance(self, instance: Instance) -> tuple[int, Receipt]:
        raise Transient(Fault.STORAGE_UNAVAILABLE, "the ledger's disk is full")


@pytest.fixture
def spool(tmp_path: Path) -> DiskSpool:
    return DiskSpool(tmp_path / "spool")


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger(ManualClock())


def accept(
    spool: DiskSpool,
    ledger: Ledger,
    *,
    command_class: str = CLASS,
    command_instance: str = UID,
    context_class: str = CLASS,
    institution_id: str | None = "clinic",
    max_object_bytes: int = MAX_OBJECT_BYTES,
) -> Acceptance:
    dataset = hand_dataset(SOPInstanceUID=UID, StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    partial = write_file(spool.incoming / "partial.dcm", dataset)
    stage = Accept(
        spool=spool,
        ledger=ledger,
        clock=ManualClock(),
        read_identity=read_identity,
        max_object_bytes=max_object_bytes,
    )
    return stage.accept(
        partial,
        command_sop_class_uid=command_class,
        command_sop_instance_uid=command_instance,
        context_sop_class_uid=context_class,
        calling_ae_title="XRAY",
        peer_address="192.0.2.7",
        institution_id=institution_id,
    )


def kept(spool: DiskSpool) -> int:
    return len(list((spool.incoming.parent / "objects").glob("??/*.dcm")))


def test_success_means_kept_and_recorded(spool: DiskSpool, ledger: InMemoryLedger) -> None:
    acceptance = accept(spool, ledger)
    assert (acceptance.status, acceptance.receipt) == (StoreStatus.SUCCESS, Receipt.NEW)
    assert acceptance.exam_id is not None
    instance = ledger.exam(acceptance.exam_id).instance
    assert (instance.sop_class_uid, instance.sop_instance_uid) == (CLASS, UID)
    assert (instance.institution_id, instance.peer_address) == ("clinic", "192.0.2.7")
    assert spool.path(instance.content_sha256).stat().st_size == instance.size_bytes
    assert instance.received_at == ManualClock().now()


def test_an_object_over_the_limit_is_refused_and_not_kept(
    spool: DiskSpool, ledger: InMemoryLedger
) -> None:
    acceptance = accept(spool, ledger, max_object_bytes=1_000)
    assert acceptance == Acceptance(
        status=StoreStatus.OUT_OF_RESOURCES, fault=Fault.OBJECT_TOO_LARGE
    )
    assert kept(spool) == 0


def test_sending_again_is_a_success_and_a_duplicate(
    spool: DiskSpool, ledger: InMemoryLedger
) -> None:
    first, second = accept(spool, ledger), accept(spool, ledger)
    assert second == replace(first, receipt=Receipt.DUPLICATE)


@pytest.mark.parametrize(
    "named",
    [
        {"command_class": "1.2.840.10008.5.1.4.1.1.2"},
        {"command_instance": "1.2.3"},
        {"context_class": "1.2.840.10008.5.1.4.1.1.2"},
    ],
    ids=str,
)
def test_three_names_of_the_object_must_agree(
    spool: DiskSpool, ledger: InMemoryLedger, named: dict[str, str]
) -> None:
    acceptance = accept(
        spool,
        ledger,
        command_class=named.get("command_class", CLASS),
        command_instance=named.get("command_instance", UID),
        context_class=named.get("context_class", CLASS),
    )
    assert acceptance == Acceptance(status=StoreStatus.MISMATCH)
    assert (kept(spool), ledger.exams) == (0, {})


def test_an_association_that_was_never_admitted_stores_nothing(
    spool: DiskSpool, ledger: InMemoryLedger
) -> None:
    acceptance = accept(spool, ledger, institution_id=None)
    assert acceptance == Acceptance(status=StoreStatus.NOT_AUTHORISED)
    assert (kept(spool), ledger.exams) == (0, {})


def test_without_a_row_there_is_no_success_though_the_bytes_are_safe(spool: DiskSpool) -> None:
    acceptance = accept(spool, BrokenLedger(ManualClock()))
    assert acceptance == Acceptance(
        status=StoreStatus.OUT_OF_RESOURCES, fault=Fault.STORAGE_UNAVAILABLE
    )
    assert kept(spool) == 1


@pytest.mark.parametrize("uid", ["1", "1.2.840", "1.2.840.01", "0.0", "1" * 64])
def test_uids(uid: str) -> None:
    assert is_valid_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1.2\n", "1.2 ", "1.a", "1" * 65, "../1", "１.２", "1.2\0"]
)
def test_no_uids(uid: str) -> None:
    assert not is_valid_uid(uid)
