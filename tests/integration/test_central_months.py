"""Months of the centre that are detached, dumped, dropped, restored and attached, while nodes and
reports go on."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from dicom_node.adapters.central import months
from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.central.months import CentralMonths
from dicom_node.adapters.central.reports import CentralReports, Scope
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.cli import main
from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.job import Stage
from dicom_node.domain.record import ExamRecord, Heartbeat
from tests.builders.exams import claim_one, complete, exam_before
from tests.builders.forwarding import forward_of
from tests.builders.records import record
from tests.fakes.clock import ManualClock
from tests.integration.peers import wait_until
from tests.peers.postgres import Postgres, make_centre, needs_postgres, running_centre

pytestmark = needs_postgres

MARCH, APRIL, MAY = date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1)
ALL = Scope(since=date(2020, 1, 1), until=date(2030, 1, 1))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
        yield running


@pytest.fixture
def centre(cluster: Postgres) -> Postgres:
    make_centre(cluster)
    return cluster


def exam(number: int, month: date, **differs: object) -> ExamRecord:
    at = datetime(month.year, month.month, 3, 12, number % 60, tzinfo=UTC)
    made = record(number, **differs)
    [way] = made.deliveries
    return replace(
        made,
        received_at=at,
        times=replace(made.times, reported_at=at),
        deliveries=(replace(way, delivered_at=at),),
    )


def filled(centre: Postgres) -> PostgresArchive:
    """Three exams in March and one in April of SP, one in March of RJ; a heartbeat in March."""
    mine = PostgresArchive(centre.url("node_sp"))
    mine.store([*(exam(number, MARCH) for number in (1, 2, 3)), exam(4, APRIL)], batch=1)
    PostgresArchive(centre.url("node_rj")).store(
        [exam(5, MARCH, region="RJ", node="rj-1")], batch=1
    )
    mine.beat(
        Heartbeat(
            region="SP",
            node="sp-1",
            version="1",
            at=datetime(2026, 3, 3, tzinfo=UTC),
            ready=True,
            queued=0,
            parked=0,
        )
    )
    return mine


def detach(centre: Postgres, before: date, region: str | None = None) -> list[str]:
    owner = CentralMonths(centre.url())
    found = owner.attached(before, region)
    owner.detach(found)
    return [table.name for table in found]


def counts(centre: Postgres) -> str:
    return centre.sql(
        "SELECT (SELECT count(*) FROM exams), (SELECT count(*) FROM deliveries), "
        "(SELECT count(*) FROM heartbeats)"
    )


@contextmanager
def reading(centre: Postgres, statement: str) -> Iterator[None]:
    """An analyst's transaction that has read something and stays open."""
    engine = create_engine(centre.url("analyst"))
    with engine.connect() as connection:
        connection.execute(text(statement))
        yield
    engine.dispose()


def test_months_of_one_region_become_tables_by_themselves(centre: Postgres) -> None:
    filled(centre)
    assert counts(centre) == "5|5|1"
    names = detach(centre, APRIL, "SP")
    assert names == ["deliveries_SP_2026_03", "heartbeats_SP_2026_03", "exams_SP_2026_03"]
    assert counts(centre) == "2|2|0"
    assert [centre.sql(f'SELECT count(*) FROM "{name}"') for name in names] == ["3", "1", "3"]
    assert detach(centre, APRIL, "SP") == []
    assert len(detach(centre, MAY)) == 6  # April of SP, March of RJ


def test_a_month_that_is_not_over_stays(centre: Postgres) -> None:
    year, month = divmod(datetime.now(UTC).year * 12 + datetime.now(UTC).month, 12)
    with pytest.raises(Permanent, match="not over"):
        CentralMonths(centre.url()).attached(date(year, month + 1, 1))


def test_only_the_owner_detaches(centre: Postgres) -> None:
    filled(centre)
    found = CentralMonths(centre.url()).attached(APRIL)
    for role in ("node_sp", "analyst"):
        with pytest.raises(Permanent) as caught:
            CentralMonths(centre.url(role)).detach(found)
        assert caught.value.fault is Fault.CENTRAL_REFUSED
    assert counts(centre) == "5|5|1"


def test_nodes_and_reports_go_on_while_a_month_is_detached(centre: Postgres) -> None:
    mine = filled(centre)
    reports = CentralReports(centre.url("analyst"))
    ended = threading.Event()

    def work() -> None:
        detach(centre, APRIL)
        ended.set()

    thread = threading.Thread(target=work)
    with reading(centre, "SELECT count(*) FROM exam_facts"):
        thread.start()
        pending = "SELECT count(*) > 0 FROM pg_inherits WHERE inhdetachpending"
        wait_until(lambda: centre.sql(pending) == "t")
        for number in range(10, 15):
            mine.store([exam(number, APRIL)], batch=number)
            for report in ("usage", "quality", "latency", "cost"):
                assert reports.read(report, ALL)
        assert not ended.is_set()
    thread.join(60)
    assert ended.is_set()
    assert counts(centre) == "6|6|0"
    [usage] = reports.read("usage", ALL)
    assert sum(row[3] for row in usage.rows) == 6


def test_a_reader_that_does_not_end_holds_detaching_up_and_it_is_finished_later(
    centre: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(centre)
    monkeypatch.setattr(months, "_WAIT_SECONDS", 1)
    with reading(centre, "SELECT count(*) FROM exam_facts"):
        owner = CentralMonths(centre.url())
        with pytest.raises(Transient, match="somebody else's transaction"):
            owner.detach(owner.attached(APRIL, "SP"))
    assert centre.sql("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == "1"
    detach(centre, APRIL, "SP")
    assert counts(centre) == "2|2|0"


def test_an_exam_of_a_detached_month_is_set_aside_until_it_is_attached(
    centre: Postgres, ledger: SqlLedger, clock: ManualClock, tmp_path: Path
) -> None:
    outbox, forward = forward_of(tmp_path, clock, PostgresArchive(centre.url("node_sp")))
    exam_before(ledger, Stage.REPORT)
    assert forward() == 1
    received = ledger.exam(1).instance.received_at
    month = received.date().replace(day=1)
    after = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    detach(centre, after)
    centre.sql(
        "; ".join(
            f'DROP TABLE "{table}_SP_{month:%Y_%m}"' for table in ("heartbeats", "deliveries")
        )
    )
    complete(ledger, claim_one(ledger, Stage.REPORT))  # its facts change
    assert forward() == 0
    assert outbox.backlog().refused == 1
    assert counts(centre) == "0|0|0"
    name = f"exams_SP_{month:%Y_%m}"
    assert centre.sql(f'SELECT count(*) FROM "{name}"') == "1"
    with pytest.raises(Permanent, match="restore it from its dump"):
        CentralMonths(centre.url()).attach(month)
    centre.sql(
        "; ".join(
            f'CREATE TABLE "{table}_SP_{month:%Y_%m}" (LIKE {table} INCLUDING ALL)'
            for table in ("heartbeats", "deliveries")
        )
    )
    CentralMonths(centre.url()).attach(month)
    assert outbox.replay(received) == 1
    assert forward() == 1
    assert counts(centre) == "1|1|0"
    assert outbox.backlog().refused == 0
    outbox.close()


def test_the_refusal_says_what_is_the_matter(centre: Postgres) -> None:
    mine = filled(centre)
    detach(centre, APRIL)
    with pytest.raises(Permanent, match="central attach") as caught:
        mine.store([exam(9, MARCH)], batch=2)
    assert caught.value.fault is Fault.RECORD_REFUSED


def run(centre: Postgres, *arguments: str) -> Result:
    url = centre.url().replace("+psycopg2", "")
    return CliRunner().invoke(main, ["--lang", "en", "central", *arguments, "--url", url])


def postgres(program: str, centre: Postgres, *arguments: str) -> str:
    done = subprocess.run(
        [f"/usr/bin/{program}", "-h", "127.0.0.1", "-p", str(centre.port), "-U", "owner",
         *arguments, "bone_age"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_a_month_is_dumped_dropped_restored_and_attached(centre: Postgres, tmp_path: Path) -> None:
    mine = filled(centre)
    tables = "SELECT string_agg(indexdef, e'\\n' ORDER BY indexdef) FROM pg_indexes"
    indexes = centre.sql(tables)
    shown = json.loads(run(centre, "detach", "--before", "2026-04", "--dry-run", "--json").output)
    assert counts(centre) == "5|5|1"
    asked = run(centre, "detach", "--before", "2026-04")
    assert (asked.exit_code, counts(centre)) == (1, "5|5|1")
    done = json.loads(run(centre, "detach", "--before", "2026-04", "--yes", "--json").output)
    assert done == shown
    assert [(table["name"], table["rows"]) for table in done if table["region"] == "SP"] == [
        ("deliveries_SP_2026_03", 3),
        ("heartbeats_SP_2026_03", 1),
        ("exams_SP_2026_03", 3),
    ]
    dump = tmp_path / "march.sql"
    options = [option for table in done for option in ("-t", f'"{table["name"]}"')]
    dump.write_text(postgres("pg_dump", centre, *options))
    for table in done:
        centre.sql(f'DROP TABLE "{table["name"]}"')

    with pytest.raises(Permanent, match="detached"):  # no new month of that name
        mine.store([exam(9, MARCH)], batch=2)
    mine.store([replace(exam(4, MAY), exam_pseudonym=exam(1, MARCH).exam_pseudonym)], batch=2)

    absent = run(centre, "attach", "2026-03")
    assert (absent.exit_code, "restore it from its dump" in absent.output) == (1, True)
    postgres("psql", centre, "-v", "ON_ERROR_STOP=1", "-qf", str(dump))
    attached = run(centre, "attach", "2026-03")
    assert attached.exit_code == 0, attached.output
    assert "exams_SP_2026_03" in attached.output
    assert counts(centre) == "5|5|1"  # of five of before and one, less the one that came again
    assert centre.sql("SELECT count(DISTINCT exam_pseudonym) = count(*) FROM exams") == "t"
    assert centre.sql(tables + " WHERE tablename !~ '2026_05$'") == indexes
    mine.store([exam(9, MARCH)], batch=3)
    assert counts(centre) == "6|6|1"
    again = run(centre, "attach", "2026-03")
    assert (again.exit_code, "is not detached" in again.output) == (1, True)
