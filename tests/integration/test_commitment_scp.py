"""Senders ask the node to commit to what it received (PS3.4 Annex J); the other side is
pynetdicom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import ComputedRadiographyImageStorage  # type: ignore[attr-defined]

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlPromises
from dicom_node.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from dicom_node.domain.commitment import (
    FailureReason,
)
from dicom_node.wiring import Wiring
from tests.builders.dicom_files import hand_dataset
from tests.integration.peers import (
    RunningReceiver,
    free_port,
    running_receiver,
    wait_until,
)
from tests.peers.commitment import STRICT, Modality, reference, status_of


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path / "node", settings=STRICT) as running:
        yield running


def ask(
    association: Association, *items: Dataset, transaction_uid: str = "1.9.9", action: int = 1
) -> int | None:
    """Ask for commitment; the N-ACTION's status."""
    asked = Dataset()
    if transaction_uid:
        asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = list(items)
    answer, _ = association.send_n_action(asked, action, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    return status_of(answer)


def stored_hand(association: Association) -> str:
    hand = hand_dataset()
    hand.file_meta = FileMetaDataset()
    hand.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert association.send_c_store(hand).Status == 0x0000
    return str(hand.SOPInstanceUID)


def test_the_result_comes_on_the_association_of_the_request(receiver: RunningReceiver) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    uid = stored_hand(association)
    assert ask(association, reference(uid), reference("1.2.404")) == 0x0000
    wait_until(lambda: bool(modality.told))
    assert stored_hand(association) != uid  # the association goes on
    association.release()
    assert modality.told[0][0] == 2
    assert modality.told[0][1].TransactionUID == "1.9.9"
    assert modality.kept() == [uid]
    assert modality.failed() == [("1.2.404", FailureReason.NO_SUCH_OBJECT_INSTANCE)]


def test_the_result_comes_on_the_next_association(receiver: RunningReceiver) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    uid = stored_hand(association)
    assert ask(association, reference(uid)) == 0x0000
    association.release()
    assert modality.told == []
    association = modality.associate(receiver.receiver.bound_port)
    wait_until(lambda: bool(modality.told))
    association.release()
    assert (modality.told[0][0], modality.kept(), modality.failed()) == (1, [uid], [])
    association = modality.associate(receiver.receiver.bound_port)
    uid = stored_hand(association)
    assert ask(association, reference(uid), transaction_uid="1.9.10") == 0x0000
    wait_until(lambda: len(modality.told) == 2)  # and the first is not told twice
    association.release()


def test_the_result_comes_on_an_association_of_the_node(
    receiver: RunningReceiver, tmp_path: Path
) -> None:
    port = free_port()
    modality = Modality(listens=port)
    association = modality.associate(receiver.receiver.bound_port)
    uid = stored_hand(association)
    assert ask(association, reference(uid)) == 0x0000
    association.release()
    wiring = wiring_of(receiver, f"127.0.0.1:{port}")
    assert wiring.promises.open(["MODALITY"], due=True) == ()  # its own association comes first

    def told() -> bool:
        wiring.return_commitments()
        return bool(modality.told)

    wait_until(told)
    assert modality.kept() == [uid]
    assert wiring.promises.open(["MODALITY"], due=False) == ()
    modality.stop()


def test_a_requester_that_does_not_listen_is_tried_again(receiver: RunningReceiver) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    assert ask(association, reference("1.2.3")) == 0x0000
    association.release()
    wiring = wiring_of(receiver, f"127.0.0.1:{free_port()}")

    def tried() -> bool:
        wiring.return_commitments()
        return wiring.promises.open(["MODALITY"], due=False)[0].attempt == 1

    wait_until(tried)
    association = modality.associate(receiver.receiver.bound_port)
    wait_until(lambda: bool(modality.told))
    association.release()


def wiring_of(receiver: RunningReceiver, address: str) -> Wiring:
    """What the delivery process of a node has, on the receiver's data folder."""
    institution = STRICT.institutions[0].model_copy(
        update={"storage_commitment": {"MODALITY": address}}
    )
    folder = receiver.ledger_path.parent
    return Wiring(
        STRICT.model_copy(
            update={
                "institutions": (institution,),
                "node": STRICT.node.model_copy(update={"data_dir": folder}),
            }
        )
    )


def test_only_what_is_intact_and_the_institutions_own_is_committed_to(
    receiver: RunningReceiver,
) -> None:
    port = receiver.receiver.bound_port
    other = AE("OTHER")
    other.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = other.associate("127.0.0.1", port, ae_title="BONEAGE")
    foreign = stored_hand(association)
    association.release()
    modality = Modality()
    association = modality.associate(port)
    mine, damaged = stored_hand(association), stored_hand(association)
    [broken] = [i for i in receiver.instances if i.sop_instance_uid == damaged]
    path = receiver.spool.path(broken.content_sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    items = (reference(mine), reference(damaged), reference(foreign), reference(mine, "1.2.88"))
    assert ask(association, *items) == 0x0000
    wait_until(lambda: bool(modality.told))
    association.release()
    assert modality.kept() == [mine]
    assert modality.failed() == [
        (damaged, FailureReason.PROCESSING_FAILURE),
        (foreign, FailureReason.NO_SUCH_OBJECT_INSTANCE),
        (mine, FailureReason.CLASS_INSTANCE_CONFLICT),
    ]


def test_a_sender_that_may_not_ask_is_not_offered_the_service(receiver: RunningReceiver) -> None:
    association = Modality("MUTE").associate(receiver.receiver.bound_port)
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    association.release()
    assert PUSH_MODEL not in accepted
    assert ComputedRadiographyImageStorage in accepted


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"transaction_uid": ""}, 0x0115),
        ({"items": ()}, 0x0115),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(
    receiver: RunningReceiver, request_: dict[str, Any], status: int
) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    items = request_.pop("items", (reference("1.2.3"),))
    assert ask(association, *items, **request_) == status
    assert stored_hand(association)
    association.release()
    promises = SqlPromises(receiver.ledger_path, SystemClock())
    assert promises.open(["MODALITY"], due=False) == ()
    promises.close()


def test_a_request_is_on_stable_storage_before_its_answer(receiver: RunningReceiver) -> None:
    association = Modality().associate(receiver.receiver.bound_port)
    for _ in range(2):  # a repeated request is the same one
        assert ask(association, reference("1.2.3")) == 0x0000
    association.abort()
    promises = SqlPromises(receiver.ledger_path, SystemClock())
    [promise] = promises.open(["MODALITY"], due=False)
    promises.close()
    assert promise.request.transaction_uid == "1.9.9"
    assert promise.institution_id == "a"


def test_a_request_that_is_repeated_is_answered_again(receiver: RunningReceiver) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    uid = stored_hand(association)
    for times in (1, 2):
        assert ask(association, reference(uid)) == 0x0000
        wait_until(lambda times=times: len(modality.told) == times)  # type: ignore[misc]
    assert ask(association, reference("1.2.3")) == FailureReason.DUPLICATE_TRANSACTION_UID
    association.release()
    assert modality.kept() == [uid, uid]


def test_a_sender_that_talks_while_its_result_waits_loses_nothing(
    receiver: RunningReceiver,
) -> None:
    modality = Modality()
    association = modality.associate(receiver.receiver.bound_port)
    uids = []
    for number in range(30):
        uids.append(stored_hand(association))
        if number % 10 == 0:
            assert ask(association, reference(uids[-1]), transaction_uid=f"1.9.{number}") == 0
    wait_until(lambda: len(modality.kept()) == 3)
    association.release()
    assert len(receiver.stored) == 30
