"""A node whose PACS, Orthanc, has to prove that it keeps the reports."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import OperatorLedger, SqlCommitments, SqlLedger
from dicom_node.adapters.scu import DestinationAddress, DicomReportSender, Peer
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.adapters.scu.verifier import DicomVerifier, VerifiedDestination
from dicom_node.domain.commitment import Evidence, Proof
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.errors import Transient
from dicom_node.domain.job import JobState, Stage
from dicom_node.domain.retry import RetryAt
from dicom_node.scp.port import listen
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.stages.confirm import Confirm
from dicom_node.stages.deliver import Deliver
from tests.builders.commitment import encoded_report, reported_exam
from tests.builders.exams import claim_one
from tests.builders.radiographs import radiograph_files
from tests.fakes.clock import ManualClock
from tests.integration.peers import free_port, running_receiver, wait_until
from tests.peers.node import running_node, write_config
from tests.peers.orthanc import Orthanc, needs_orthanc, running_orthanc

pytestmark = needs_orthanc

PROOFS = {Proof.COMMITMENT: "storage_commitment = true", Proof.QUERY: "verify_by_query = true"}


@pytest.mark.parametrize("proof", PROOFS)
def test_every_delivery_is_closed_by_proof(tmp_path: Path, proof: Proof) -> None:
    port = free_port()
    with ExitStack() as running:
        pacs = running.enter_context(running_orthanc(tmp_path / "pacs", node_port=port))
        config = write_config(
            tmp_path / "node",
            [("pacs", Orthanc.ae_title, pacs.dicom_port)],
            extra='[inference]\nworkers = 1\ndevice = "cpu"\n',
        )
        config.write_text(f"{config.read_text()}\n{PROOFS[proof]}\n")
        environment = running.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("DICOM_NODE_NODE__PORT", str(port))
        node = running.enter_context(running_node(tmp_path / "node"))
        files = radiograph_files(tmp_path / "hands", 2)
        assert all(s.status == 0 for s in send_files(files, node.peer, calling_ae_title="CR"))
        node.wait_until_idle(90)
        ledger = node.ledger()
        for exam_id in (1, 2):
            details = ledger.exam_details(exam_id)
            assert {d.evidence for d in details.deliveries} == {Evidence.KEPT}
            assert [j.state for j in details.jobs if j.stage is Stage.CONFIRM] == [JobState.DONE]
        ledger.close()
        shown = node.command("exam", "show", "1", "--json")
        assert [item["evidence"] for item in shown["deliveries"]] == ["kept", "kept"]
        assert len(pacs.reports()) == 4


@pytest.mark.parametrize("proof", PROOFS)
def test_a_report_that_the_pacs_stored_and_lost_is_sent_again(tmp_path: Path, proof: Proof) -> None:
    port = free_port()
    with ExitStack() as running:
        pacs = running.enter_context(running_orthanc(tmp_path / "pacs", node_port=port))
        destination = DestinationSettings(
            name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.dicom_port
        )
        clock = ManualClock()
        node = running.enter_context(
            running_receiver(
                tmp_path / "node",
                clock=clock,
                listening=listen("127.0.0.1", port),
                settings=Settings(
                    destinations=(destination.model_copy(update={"storage_commitment": True}),)
                ),
            )
        )
        commitments = SqlCommitments(node.ledger_path, clock)
        peer = Peer(host="127.0.0.1", port=pacs.dicom_port, ae_title=pacs.ae_title)
        sender = DicomReportSender(
            [DestinationAddress(name="pacs", peer=peer, timeout_seconds=10.0)],
            calling_ae_title="BONEAGE",
        )
        verifier = DicomVerifier(
            [VerifiedDestination(name="pacs", peer=peer, timeout_seconds=10.0, proof=proof)],
            calling_ae_title="BONEAGE",
            told=commitments.record_result,
        )
        ledger = SqlLedger(node.ledger_path, clock)
        deliver = Deliver(
            ledger=ledger,
            sender=sender,
            clock=clock,
            kinds=lambda _: set(ReportKind),
            proof=lambda _: proof,
            transferred=lambda *_, **__: None,
        )
        confirm = Confirm(
            commitments=commitments, verifier=verifier, clock=clock, proof=lambda _: proof
        )

        def prove() -> bool:
            """Run job(CONFIRM) until the destination has said something; whether it is done."""
            clock.advance(1800)
            job = claim_one(ledger, Stage.CONFIRM)
            try:
                confirm(job)
            except Transient as error:
                run_after = clock.now()
                ledger.fail(job, RetryAt(run_after=run_after, fault=error.fault, detail=""))
                return False
            return True

        exam_id = reported_exam(ledger, encoded_report())
        deliver(claim_one(ledger, Stage.DELIVER))
        [lost] = pacs.get("/instances")
        pacs.delete(f"/instances/{lost}")
        wait_until(prove)
        deliver(claim_one(ledger, Stage.DELIVER))
        wait_until(prove)
        assert pacs.count() == 1
        assert ledger.claim(list(Stage), owner="o", lease_seconds=1.0, limit=9) == []
        operator = OperatorLedger(node.ledger_path, clock)
        [delivery] = operator.exam_details(exam_id).deliveries
        assert (delivery.evidence, delivery.losses) == (Evidence.KEPT, 1)
        for part in (operator, ledger, commitments, verifier, sender):
            part.close()
