"""A destination that is away: reports wait in the node, and go in order when it is back."""

from __future__ import annotations

import time
from pathlib import Path

from dicom_node.adapters.ledger.queries import OperatorLedger
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.job import Job, JobState, Stage
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import free_port, running_storescp, wait_until
from tests.peers.invariants import check_fates, check_rest, stored_in
from tests.peers.node import running_node, write_config

_EXAMS = 30


def test_an_outage_is_noticed_and_ends_in_order(tmp_path: Path) -> None:
    files = radiograph_files(tmp_path / "sent", _EXAMS)
    port = free_port()
    write_config(tmp_path / "node", [("pacs", "PACS", port)])
    with running_node(tmp_path / "node") as node:
        silent = 'dicom_node_destinations_silent{destination="pacs"}'
        assert f"{silent} 0.0" in node.get("/metrics")
        sent = send_files(files, node.peer, calling_ae_title="MODALITY")
        assert all(item.status == 0 for item in sent)
        wait_until(lambda: f"{silent} 1.0" in node.get("/metrics"), seconds=90)
        ledger = node.ledger()
        wait_until(lambda: not ledger.jobs(limit=1, state=JobState.LEASED))  # the fifth is settled
        attempts = sum(job.attempt for job in waiting(ledger))
        time.sleep(5)
        assert sum(job.attempt for job in waiting(ledger)) == attempts, "it is only probed"
        wait_until(lambda: len(waiting(ledger)) == _EXAMS, seconds=120)

        with running_storescp(tmp_path / "pacs", port=port):
            begun = time.monotonic()
            wait_until(lambda: not waiting(ledger), seconds=120)
            assert time.monotonic() - begun < 90, "a probe a minute, not a backoff of 15 minutes"
            node.wait_until_idle(60)
        assert f"{silent} 0.0" in node.get("/metrics")
        done = [job for job in ledger.jobs(limit=1000) if job.stage is Stage.DELIVER]
        assert len(done) == _EXAMS
        by_age = sorted(done, key=lambda job: job.created_at)
        answers = [a for job in by_age for a in ledger.exam_details(job.exam_id).deliveries]
        assert {answer.verdict for answer in answers} == {Verdict.STORED}
        times = [answer.answered_at for answer in answers]
        assert times == sorted(times), "the oldest went first"
        ledger.close()
        assert check_fates(node, files, stored_in(tmp_path / "pacs")).reported == _EXAMS
        check_rest(node, answered=_EXAMS, restarts=0)


def waiting(ledger: OperatorLedger) -> list[Job]:
    """Deliveries that wait."""
    jobs = ledger.jobs(limit=1000, state=JobState.QUEUED)
    return [job for job in jobs if job.stage is Stage.DELIVER]
