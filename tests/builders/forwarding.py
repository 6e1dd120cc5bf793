"""A ledger's way to the centre, without a node around it."""

from __future__ import annotations

from pathlib import Path

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.pseudonyms import CentralPseudonyms
from dicom_node.adapters.ledger import SqlLedger, SqlOutbox
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.job import Stage
from dicom_node.ports import Clock
from dicom_node.stages.forward import Forward
from tests.builders.exams import answer, claim_one, complete, exam_before


def delivered_exam(ledger: SqlLedger, number: int = 1) -> int:
    """The exam's id; the PACS has its reports."""
    exam_id = exam_before(ledger, Stage.DELIVER, number=number)
    job = claim_one(ledger, Stage.DELIVER)
    ledger.record_delivery(job, answer(exam_id, "pacs", verdict=Verdict.STORED))
    complete(ledger, job)
    return exam_id


def forward_of(folder: Path, clock: Clock, centre: PostgresArchive) -> tuple[SqlOutbox, Forward]:
    """What waits in the ledger of a folder, and what sends it as ``sp-1`` of ``SP``."""
    outbox = SqlOutbox(folder / "ledger.sqlite", clock)
    return outbox, Forward(
        outbox=outbox,
        centre=centre,
        pseudonyms=CentralPseudonyms(folder / "keys"),
        reference=load_reference_table("greulich-pyle-v-vi"),
        region="SP",
        node="sp-1",
    )
