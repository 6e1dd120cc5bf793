"""The node asks destinations what they keep: requests, results on both ways, queries (PS3.4 Annex J
and C). The other side is pynetdicom, and Orthanc."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlCommitments
from dicom_node.adapters.scu import Peer
from dicom_node.adapters.scu.verifier import DicomVerifier, VerifiedDestination
from dicom_node.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from dicom_node.domain.commitment import (
    CommitmentResult,
    Evidence,
    FailureReason,
    Proof,
    Reference,
    SentObject,
)
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.domain.job import Stage
from tests.builders.commitment import deliver, encoded_report, reported_exam
from tests.builders.dicom_files import hand_dataset, write_file
from tests.builders.exams import claim_one
from tests.integration.peers import (
    RunningReceiver,
    dcmtk,
    free_port,
    running_receiver,
    wait_until,
)
from tests.peers.commitment import PACS, STRICT, reference, status_of
from tests.peers.orthanc import needs_orthanc, running_orthanc


def sent(uid: str = "1.2.3") -> SentObject:
    return SentObject(
        reference=Reference(sop_class_uid="1.2.88", sop_instance_uid=uid),
        study_instance_uid="1.2.1",
        series_instance_uid="1.2.2",
        made_sop_instance_uid=uid,
        answered_at=SystemClock().now(),
        evidence=None,
        evidence_at=None,
        losses=0,
    )


class Archive:
    """A Storage Commitment SCP. ``tell_at_once``: its result goes back on the association on which
    it was asked; otherwise :meth:`tell` opens one."""

    def __init__(self, *, status: int = 0x0000, tell_at_once: bool = False) -> None:
        self.asked: list[Dataset] = []
        self.statuses: list[int | None] = []
        self._status, self._at_once = status, tell_at_once
        ae = AE(PACS)
        ae.add_supported_context(PUSH_MODEL, ExplicitVRLittleEndian)
        server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._on_action)]
        )
        assert server is not None
        self._server, self.port = server, int(server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        assert event.action_type == 1
        assert request.RequestedSOPInstanceUID == PUSH_MODEL_INSTANCE
        self.asked.append(event.action_information)
        if self._at_once:
            threading.Timer(0.2, self._tell_on, [event.assoc]).start()
        return self._status, None

    def _tell_on(self, association: Association) -> None:
        said = Dataset()
        said.TransactionUID = self.asked[-1].TransactionUID
        said.ReferencedSOPSequence = self.asked[-1].ReferencedSOPSequence
        answer, _ = association.send_n_event_report(said, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.statuses.append(answer.get("Status"))


@contextmanager
def archive(**how: Any) -> Iterator[Archive]:
    running = Archive(**how)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def verifier_of(
    port: int, proof: Proof = Proof.COMMITMENT, told: Callable[[CommitmentResult], bool] = bool
) -> Iterator[DicomVerifier]:
    destination = VerifiedDestination(
        name="pacs",
        peer=Peer(host="127.0.0.1", port=port, ae_title=PACS),
        timeout_seconds=10.0,
        proof=proof,
    )
    running = DicomVerifier([destination], calling_ae_title="BONEAGE", told=told)
    try:
        yield running
    finally:
        running.close()


def event_report(
    port: int,
    transaction_uid: str,
    kept: list[Dataset],
    failed: list[Dataset] | None = None,
    *,
    calling: str = PACS,
    as_provider: bool = True,
) -> int | None:
    """Tell a result on a new association; the status, None where the context was not accepted."""
    ae = AE(calling)
    ae.add_requested_context(PUSH_MODEL, ExplicitVRLittleEndian)
    roles: list[Any] = [build_role(PUSH_MODEL, scp_role=True)] if as_provider else []
    association = ae.associate("127.0.0.1", port, ae_title="BONEAGE", ext_neg=roles)
    if not association.is_established:
        return None
    said = Dataset()
    said.TransactionUID = transaction_uid
    said.ReferencedSOPSequence = kept
    if failed:
        said.FailedSOPSequence = failed
    try:
        event = 2 if failed else 1
        answer, _ = association.send_n_event_report(said, event, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        return status_of(answer)
    finally:
        association.release()


# The node asks


def test_a_request_names_every_object_in_one_transaction() -> None:
    with archive() as pacs, verifier_of(pacs.port) as verifier:
        found = verifier.verify("pacs", [sent("1.2.3"), sent("1.2.4")], transaction_uid="1.9")
        assert found == {}
        [asked] = pacs.asked
        assert asked.TransactionUID == "1.9"
        assert [
            (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
            for item in asked.ReferencedSOPSequence
        ] == [("1.2.88", "1.2.3"), ("1.2.88", "1.2.4")]


@pytest.mark.parametrize("known", [True, False])
def test_a_result_on_the_same_association_is_taken(known: bool) -> None:
    told: list[CommitmentResult] = []

    def take(result: CommitmentResult) -> bool:
        told.append(result)
        return known

    with archive(tell_at_once=True) as pacs, verifier_of(pacs.port, told=take) as verifier:
        verifier.verify("pacs", [sent()], transaction_uid="1.9")
        wait_until(lambda: bool(pacs.statuses))
        assert pacs.statuses == [0x0000 if known else 0x0115]
        assert [(result.transaction_uid, result.evidence) for result in told] == [
            ("1.9", {"1.2.3": Evidence.KEPT})
        ]
        verifier.verify("pacs", [sent("1.2.5")], transaction_uid="1.10")  # it still serves
        wait_until(lambda: len(pacs.statuses) == 2)


def test_a_destination_that_fails_the_request_is_asked_again() -> None:
    with archive(status=0x0110) as pacs, verifier_of(pacs.port) as verifier:
        with pytest.raises(Transient, match="N-ACTION with status 0110") as caught:
            verifier.verify("pacs", [sent()], transaction_uid="1.9")
        assert caught.value.fault is Fault.DESTINATION_BUSY


def test_a_destination_without_the_service_refuses() -> None:
    with archive() as pacs, verifier_of(pacs.port, Proof.QUERY) as verifier:
        with pytest.raises(Permanent) as caught:
            verifier.verify("pacs", [sent()], transaction_uid="1.9")
        assert caught.value.fault is Fault.DESTINATION_REFUSED
        assert "set verify_by_query = false" in str(caught.value)


def test_a_destination_that_is_away_is_unavailable() -> None:
    with verifier_of(free_port()) as verifier, pytest.raises(NodeError) as caught:
        verifier.verify("pacs", [sent()], transaction_uid="1.9")
    assert caught.value.fault is Fault.DESTINATION_UNAVAILABLE


@needs_orthanc
def test_a_query_finds_what_is_there_and_misses_what_is_gone(tmp_path: Path) -> None:
    hand = hand_dataset(PatientID="1")
    with running_orthanc(tmp_path / "pacs") as pacs:
        pacs.post("/instances", write_file(tmp_path / "hand.dcm", hand).read_bytes())
        there = SentObject(
            **{
                **vars(sent(str(hand.SOPInstanceUID))),
                "study_instance_uid": str(hand.StudyInstanceUID),
                "series_instance_uid": str(hand.SeriesInstanceUID),
            }
        )
        with verifier_of(pacs.dicom_port, Proof.QUERY) as verifier:
            found = verifier.verify("pacs", [there, sent("1.2.3.9")], transaction_uid="1.9")
    assert found == {str(hand.SOPInstanceUID): Evidence.KEPT, "1.2.3.9": Evidence.LOST}


# Results that come to the receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path / "node", settings=STRICT) as running:
        yield running


def asked_for(receiver: RunningReceiver, uid: str) -> str:
    """A Transaction UID that waits for the result about a delivered report."""
    report = encoded_report()
    reported_exam(receiver.ledger, report)
    deliver(receiver.ledger, report, sent_as=uid)
    commitments = SqlCommitments(receiver.ledger_path, SystemClock())
    transaction_uid = str(generate_uid())
    commitments.ask(claim_one(receiver.ledger, Stage.CONFIRM), transaction_uid)
    commitments.close()
    return transaction_uid


def deliveries(receiver: RunningReceiver) -> list[tuple[str, str | None]]:
    """Each delivered object, as it was sent, and what is known of it."""
    with closing(sqlite3.connect(receiver.ledger_path)) as connection:
        return connection.execute(
            "SELECT sent_sop_instance_uid, evidence FROM deliveries"
        ).fetchall()


@pytest.mark.parametrize("as_provider", [True, False])
def test_a_destination_tells_its_result_on_an_association_of_its_own(
    receiver: RunningReceiver,
    as_provider: bool,
) -> None:
    transaction_uid = asked_for(receiver, "1.2.3")
    port = receiver.receiver.bound_port
    status = event_report(port, transaction_uid, [reference("1.2.3")], as_provider=as_provider)
    assert status == 0x0000
    assert deliveries(receiver) == [("1.2.3", "kept")]
    again = event_report(port, transaction_uid, [reference("1.2.3")])
    assert again == 0x0115


def test_a_failure_is_kept_with_its_meaning(receiver: RunningReceiver) -> None:
    transaction_uid = asked_for(receiver, "1.2.3")
    failed = reference("1.2.3")
    failed.FailureReason = int(FailureReason.NO_SUCH_OBJECT_INSTANCE)
    port = receiver.receiver.bound_port
    assert event_report(port, transaction_uid, [], [failed]) == 0x0000
    assert deliveries(receiver) == [("1.2.3", "lost")]


def test_a_result_without_transaction_is_refused(receiver: RunningReceiver) -> None:
    asked_for(receiver, "1.2.3")
    assert event_report(receiver.receiver.bound_port, "", [reference("1.2.3")]) == 0x0115
    assert deliveries(receiver) == [("1.2.3", None)]


def test_a_destination_that_is_no_sender_may_not_store(
    receiver: RunningReceiver, tmp_path: Path
) -> None:
    path = write_file(tmp_path / "hand.dcm", hand_dataset())
    said = dcmtk("dcmsend", "-v", "-aet", PACS, "-aec", "BONEAGE", *receiver.address, path)
    assert "no acceptable presentation context" in said.lower()
    assert receiver.stored == []


def test_who_is_neither_sender_nor_destination_is_a_stranger(receiver: RunningReceiver) -> None:
    transaction_uid = asked_for(receiver, "1.2.3")
    port = receiver.receiver.bound_port
    told = event_report(port, transaction_uid, [reference("1.2.3")], calling="STRANGER")
    assert told is None
    assert deliveries(receiver) == [("1.2.3", None)]


def answers_to_results(count: int) -> list[int | None]:
    """Ask ``count`` times, one at once after the other; the node's answer to each result. The
    archive tells it 0.2 s after the request."""
    with archive(tell_at_once=True) as pacs, verifier_of(pacs.port) as verifier:
        for number in range(count):
            verifier.verify("pacs", [sent(f"1.2.{number}")], transaction_uid=f"1.9.{number}")
        wait_until(lambda: len(pacs.statuses) == count)
    return pacs.statuses


def test_a_result_that_comes_late_does_not_meet_the_next_request() -> None:
    assert answers_to_results(5) == [0x0000] * 5


@pytest.fixture
def late_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's answer to each result goes out 0.2 s after the result was taken."""
    send = DIMSEServiceProvider.send_msg

    def send_answer_late(self: DIMSEServiceProvider, message: Any, context_id: int) -> None:
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            time.sleep(0.2)
        send(self, message, context_id)

    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_answer_late)


@pytest.mark.usefixtures("late_answers")
def test_the_next_request_does_not_overtake_the_answer_to_a_result() -> None:
    assert answers_to_results(2) == [0x0000] * 2


@pytest.mark.usefixtures("late_answers")
def test_the_release_does_not_overtake_the_answer_to_a_result() -> None:
    results: list[CommitmentResult] = []

    def told(result: CommitmentResult) -> bool:
        results.append(result)
        return True

    with archive(tell_at_once=True) as pacs:
        with verifier_of(pacs.port, told=told) as verifier:
            verifier.verify("pacs", [sent("1.2.3")], transaction_uid="1.9.1")
            wait_until(lambda: bool(results))
            time.sleep(0.05)  # the handler has returned, the answer is held back
        wait_until(lambda: bool(pacs.statuses))
        assert pacs.statuses == [0x0000]
