"""What reaches the centre: from a real ledger to a real PostgreSQL, through outages, restored
databases and wrong values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydicom._dicom_dict import DicomDictionary

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.pseudonyms import CentralPseudonyms
from dicom_node.adapters.ledger import OperatorLedger, SqlLedger, SqlOutbox
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.delivery import Verdict
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import UNKNOWN_SENDER
from dicom_node.domain.job import Stage
from dicom_node.domain.record import ExamRecord
from dicom_node.domain.retry import Park
from dicom_node.stages.forward import BATCH, Forward
from tests.builders.exams import answer, claim_one, complete, exam_before, instance
from tests.builders.forwarding import delivered_exam
from tests.builders.radiographs import radiograph
from tests.fakes.clock import ManualClock
from tests.integration.peers import wait_until
from tests.peers.node import running_node, write_config
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
        yield running


@pytest.fixture
def centre(cluster: Postgres) -> Postgres:
    cluster.sql("TRUNCATE exams, deliveries, heartbeats, institutions, models")
    cluster.sql("UPDATE nodes SET last_batch = 0")
    return cluster


@pytest.fixture
def outbox(ledger: SqlLedger, tmp_path: Path, clock: ManualClock) -> Iterator[SqlOutbox]:
    running = SqlOutbox(tmp_path / "ledger.sqlite", clock)
    yield running
    running.close()


@pytest.fixture
def forward(centre: Postgres, outbox: SqlOutbox, tmp_path: Path) -> Forward:
    return Forward(
        outbox=outbox,
        centre=PostgresArchive(centre.url("node_sp")),
        pseudonyms=CentralPseudonyms(tmp_path / "keys"),
        reference=load_reference_table("greulich-pyle-v-vi"),
        region="SP",
        node="sp-1",
    )


def test_an_exam_is_forwarded_when_it_has_an_outcome(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    exam_before(ledger, Stage.INFER)
    assert forward() == 0
    complete(ledger, claim_one(ledger, Stage.INFER))
    assert forward() == 1
    assert centre.sql("SELECT outcome, bone_age_months, sex FROM exams") == "assessed|126.5|M"
    assert forward() == 0
    assert outbox.backlog().waiting == 0


def test_each_change_is_forwarded(
    centre: Postgres,
    ledger: SqlLedger,
    forward: Forward,
    operator: OperatorLedger,
    clock: ManualClock,
) -> None:
    exam_id = exam_before(ledger, Stage.DELIVER)
    assert forward() == 1
    assert centre.sql("SELECT destination, outcome FROM deliveries") == "pacs|open"
    job = claim_one(ledger, Stage.DELIVER)
    ledger.fail(job, Park(fault=Fault.DESTINATION_REFUSED, detail="no"))
    assert forward() == 1
    assert centre.sql("SELECT outcome FROM deliveries") == "parked"
    operator.retry_job(job.job_id)
    job = claim_one(ledger, Stage.DELIVER)
    clock.advance(2)
    ledger.record_delivery(job, answer(exam_id, "pacs", verdict=Verdict.STORED))
    complete(ledger, job)
    assert forward() == 1
    assert centre.sql(
        "SELECT outcome, extract(epoch FROM delivered_at - received_at)::int FROM deliveries"
    ).startswith("delivered|")
    assert centre.sql("SELECT count(*) FROM exams") == "1"


def test_the_stages_times_are_those_of_the_ledger(
    centre: Postgres, ledger: SqlLedger, forward: Forward, clock: ManualClock
) -> None:
    exam_before(ledger, Stage.SCREEN)
    for seconds, stage in ((1, Stage.SCREEN), (2, Stage.INFER), (4, Stage.REPORT)):
        clock.advance(seconds)
        complete(ledger, claim_one(ledger, stage))
    forward()
    assert centre.sql("SELECT screen_seconds, infer_seconds, report_seconds FROM exams") == "1|2|4"


def test_what_happens_while_a_batch_is_on_its_way_is_sent_again(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    exam_id = exam_before(ledger, Stage.REPORT)
    [waiting] = outbox.waiting(BATCH)
    complete(ledger, claim_one(ledger, Stage.REPORT))
    outbox.forwarded({exam_id: waiting.change}, batch=1)
    assert outbox.backlog().waiting == 1
    forward()
    assert centre.sql("SELECT count(*) FROM deliveries") == "1"


def test_an_outage_is_caught_up_in_batches(
    centre: Postgres,
    ledger: SqlLedger,
    outbox: SqlOutbox,
    forward: Forward,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dicom_node.stages.forward.BATCH", 4)
    centre.stop("immediate")
    try:
        for number in range(1, 11):
            delivered_exam(ledger, number)
        with pytest.raises(Transient):
            forward()
        assert outbox.backlog().waiting == 10
    finally:
        centre.start()
    assert forward() == 10
    assert centre.sql("SELECT count(*) FROM exams") == "10"
    assert centre.sql("SELECT last_batch FROM nodes WHERE node = 'sp-1'") == "3"


def test_a_centre_that_lost_its_last_batches_gets_them_again(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    for number in (1, 2, 3):
        delivered_exam(ledger, number)
        forward()
    # as a replica has it that was promoted before it had all
    centre.sql("DELETE FROM exams WHERE received_at > (SELECT min(received_at) FROM exams)")
    centre.sql("UPDATE nodes SET last_batch = 1")
    assert forward() == 2
    assert (
        centre.sql("SELECT count(*), (SELECT last_batch FROM nodes WHERE node = 'sp-1') FROM exams")
        == "3|4"
    )
    assert outbox.last_batch() == 4


def test_an_empty_centre_is_filled_again(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward, clock: ManualClock
) -> None:
    delivered_exam(ledger, 1)
    clock.advance(3600)
    delivered_exam(ledger, 2)
    forward()
    centre.sql("TRUNCATE exams, deliveries")  # its last batch is still counted
    assert forward() == 0
    assert outbox.replay(datetime(2000, 1, 1, tzinfo=UTC)) == 2
    assert forward() == 2
    assert outbox.replay(clock.now() + timedelta(days=1)) == 0


def test_one_wrong_exam_does_not_hold_up_the_others(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    for number in (1, 2, 3):
        delivered_exam(ledger, number)
    second = outbox.waiting(BATCH)[1]
    name = forward.record(second).exam_pseudonym
    centre.sql(f"ALTER TABLE exams ADD CONSTRAINT odd CHECK (exam_pseudonym <> '{name}')")
    try:
        assert forward() == 2
        assert outbox.backlog().refused == 1
        assert outbox.backlog().waiting == 0
        assert forward() == 0
    finally:
        centre.sql("ALTER TABLE exams DROP CONSTRAINT odd")
    outbox.replay(datetime(2000, 1, 1, tzinfo=UTC))
    assert forward() == 3
    assert outbox.backlog().refused == 0


def test_each_transaction_has_a_number_of_its_own(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    for number in (1, 2, 3):
        delivered_exam(ledger, number)
    name = forward.record(outbox.waiting(BATCH)[0]).exam_pseudonym
    centre.sql(f"ALTER TABLE exams ADD CONSTRAINT odd CHECK (exam_pseudonym <> '{name}')")
    try:
        assert forward() == 2
    finally:
        centre.sql("ALTER TABLE exams DROP CONSTRAINT odd")
    assert (
        outbox.last_batch(),
        centre.sql("SELECT last_batch FROM nodes WHERE node = 'sp-1'"),
    ) == (2, "2")


def test_an_exam_whose_sender_was_forgotten_waits_for_it(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    forgotten = replace(instance(), institution_id=UNKNOWN_SENDER)
    ledger.record_instance(forgotten)
    for stage in (Stage.SCREEN, Stage.INFER):
        complete(ledger, claim_one(ledger, stage))
    assert forward() == 0
    ledger.record_instance(instance())
    assert forward() == 1
    assert centre.sql("SELECT institution_id FROM exams") == instance().institution_id


def test_an_exam_that_is_ignored_after_all_has_no_bone_age_any_more(
    centre: Postgres, ledger: SqlLedger, forward: Forward, operator: OperatorLedger
) -> None:
    exam_id = delivered_exam(ledger)
    assert forward() == 1
    operator.reassess(exam_id)
    job = claim_one(ledger, Stage.SCREEN)
    ledger.complete_ignored(job, Reason.OTHER_MODALITY, study_instance_uid="1.2")
    assert forward() == 1
    assert centre.sql("SELECT outcome, bone_age_months FROM exams") == "ignored|"


def test_a_clock_that_was_set_back_in_between_refuses_nothing(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward, clock: ManualClock
) -> None:
    exam_before(ledger, Stage.INFER)
    clock.advance(-7200)
    ledger.mend_clock_step()
    for stage in (Stage.INFER, Stage.REPORT):
        complete(ledger, claim_one(ledger, stage))
    assert forward() == 1
    assert outbox.backlog().refused == 0


def test_a_node_that_is_not_let_in_keeps_everything(
    centre: Postgres, ledger: SqlLedger, outbox: SqlOutbox, forward: Forward
) -> None:
    delivered_exam(ledger)
    centre.sql("UPDATE nodes SET region = 'XX' WHERE node = 'sp-1'")
    try:
        with pytest.raises(Permanent) as caught:
            forward()
        assert caught.value.fault is Fault.CENTRAL_REFUSED
        assert outbox.backlog().waiting == 1
        assert outbox.backlog().refused == 0
    finally:
        centre.sql("UPDATE nodes SET region = 'SP' WHERE node = 'sp-1'")
    assert forward() == 1


def field_names(kind: Any) -> Iterator[str]:
    for field in fields(kind):
        yield field.name
        hint = get_type_hints(kind)[field.name]
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                yield from field_names(inner)


def test_no_field_of_a_record_can_hold_an_attribute_of_an_image() -> None:
    """Every keyword of the DICOM dictionary; what a record has by the same word is no identity."""
    allowed = {"outcome", "node", "sex", "region", "reason", "name", "version", "destination"}
    names = set(field_names(ExamRecord)) - allowed
    assert len(names) >= 20
    keywords = {entry[4].lower() for entry in DicomDictionary.values()}
    assert {"patientname", "sopinstanceuid"} <= keywords
    assert not {name.replace("_", "") for name in names} & keywords
    assert not [name for name in names if re.search(r"uid|birth|accession|address|title", name)]


def test_names_follow_from_the_key_and_nothing_else(tmp_path: Path, ledger: SqlLedger) -> None:
    first = ledger.exam(exam_before(ledger, Stage.SCREEN, number=1))
    complete(ledger, claim_one(ledger, Stage.SCREEN))
    second = ledger.exam(exam_before(ledger, Stage.SCREEN, number=2))
    keys, others = CentralPseudonyms(tmp_path / "keys"), CentralPseudonyms(tmp_path / "others")
    names = keys.of(first, "ab" * 32)
    assert keys.of(first, "ab" * 32) == CentralPseudonyms(tmp_path / "keys").of(first, "ab" * 32)
    assert len(names.exam_pseudonym) == len(names.patient_pseudonym or "") == 64
    assert names.patient_pseudonym not in {names.exam_pseudonym, "ab" * 32}
    assert keys.of(second, None).exam_pseudonym != names.exam_pseudonym
    assert keys.of(second, None).patient_pseudonym is None
    assert others.of(first, "ab" * 32).exam_pseudonym != names.exam_pseudonym
    [file] = (tmp_path / "keys").rglob("*.key")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_new_key_holds_from_now_on(tmp_path: Path, ledger: SqlLedger) -> None:
    exam = ledger.exam(exam_before(ledger, Stage.SCREEN))
    keys = CentralPseudonyms(tmp_path / "keys")
    before = keys.of(exam, "ab" * 32)
    key_id = keys.renew(exam.instance.institution_id)
    assert keys.of(exam, "ab" * 32) == before  # received before it
    assert key_id != before.key_id
    assert len(list((tmp_path / "keys").rglob("*.key"))) == 2


def test_a_damaged_key_is_no_new_key(tmp_path: Path, ledger: SqlLedger) -> None:
    exam = ledger.exam(exam_before(ledger, Stage.SCREEN))
    CentralPseudonyms(tmp_path / "keys").of(exam, None)
    [file] = (tmp_path / "keys").rglob("*.key")
    file.rename(file.with_name("19700101T000000000001Z.key"))  # not the one that was read
    [file] = (tmp_path / "keys").rglob("*.key")
    file.write_bytes(b"short")
    with pytest.raises(Permanent, match="damaged"):
        CentralPseudonyms(tmp_path / "keys").of(exam, None)


def test_a_node_tells_the_centre_and_goes_on_without_it(centre: Postgres, tmp_path: Path) -> None:
    write_config(
        tmp_path / "node",
        [],
        node='name = "sp-1"\nregion = "SP"',
        extra=f'[central]\nurl = "{centre.url("node_sp").replace("+psycopg2", "")}"\n'
        '[inference]\nworkers = 1\ndevice = "cpu"\n',
    )
    files = [tmp_path / f"hand-{number}.dcm" for number in range(3)]
    for number, file in enumerate(files):
        hand = radiograph(number, PatientName="ZZCANARY^A", PatientID="ZZCANARY")
        hand.save_as(file, enforce_file_format=True)
    with running_node(tmp_path / "node") as node:
        send_all(node.peer, files[:1])
        wait_until(lambda: centre.sql("SELECT count(*) FROM exams") == "1", seconds=60)
        centre.stop("immediate")
        send_all(node.peer, files[1:])
        node.wait_until_idle(60)
        wait_until(lambda: "dicom_node_central_silent 1.0" in node.get("/metrics"), seconds=30)
        assert "dicom_node_outbox_exams 2.0" in node.get("/metrics")
        centre.start()
        wait_until(lambda: centre.sql("SELECT count(*) FROM exams") == "3", seconds=60)
        assert node.command("central", "status", "--json")["waiting"] == 0
        log = (tmp_path / "node" / "node.log").read_text()
    assert log.count('"central_silent"') == 1
    assert centre.sql("SELECT DISTINCT node, region FROM exams") == "sp-1|SP"
    assert "ZZCANARY" not in centre.sql("SELECT * FROM exams, deliveries, institutions, nodes")


def send_all(peer: Any, files: list[Path]) -> None:
    assert all(sent.status == 0 for sent in send_files(files, peer, calling_ae_title="CR"))
