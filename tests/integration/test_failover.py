"""The centre on two servers: reports read a replica, and what a promoted replica lacks is sent
again."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.pseudonyms import CentralPseudonyms
from dicom_node.adapters.central.reports import CentralReports, Scope
from dicom_node.adapters.ledger import SqlLedger, SqlOutbox
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.domain.job import Stage
from dicom_node.stages.forward import Forward
from tests.builders.exams import exam_before
from tests.fakes.clock import ManualClock
from tests.integration.peers import wait_until
from tests.peers.postgres import needs_postgres, running_centre, running_standby

pytestmark = needs_postgres


def test_a_promoted_replica_that_lacks_the_last_exams_gets_them(
    ledger: SqlLedger, clock: ManualClock, tmp_path: Path
) -> None:
    with ExitStack() as running:
        primary = running.enter_context(running_centre(tmp_path / "primary"))
        replica = running.enter_context(running_standby(primary, tmp_path / "replica"))
        servers = "&".join(f"host=127.0.0.1:{server.port}" for server in (primary, replica))
        outbox = SqlOutbox(tmp_path / "ledger.sqlite", clock)
        forward = Forward(
            outbox=outbox,
            centre=PostgresArchive(
                f"postgresql://node_sp@/bone_age?{servers}&target_session_attrs=read-write"
            ),
            pseudonyms=CentralPseudonyms(tmp_path / "keys"),
            reference=load_reference_table("greulich-pyle-v-vi"),
            region="SP",
            node="sp-1",
        )
        exam_before(ledger, Stage.REPORT, number=1)
        assert forward() == 1
        wait_until(lambda: replica.sql("SELECT count(*) FROM exams") == "1")
        day = datetime.now(UTC).date().replace(day=1, month=1)
        scope = Scope(since=day.replace(year=2020), until=day.replace(year=2100))
        [usage] = CentralReports(replica.url("analyst")).read("usage", scope)
        assert [row[3] for row in usage.rows] == [1]

        replica.stop()
        for number in (2, 3):
            exam_before(ledger, Stage.REPORT, number=number)
            assert forward() == 1
        primary.stop("immediate")
        replica.start()
        replica.promote()
        assert replica.sql("SELECT count(*) FROM exams") == "1"

        exam_before(ledger, Stage.REPORT, number=4)
        assert forward() == 3
        assert replica.sql("SELECT count(*) FROM exams") == "4"
        assert outbox.backlog().waiting == 0
        outbox.close()
        primary.start()
