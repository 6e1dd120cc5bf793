"""`dicom-node report`: every figure equals what is computed from the list of what was sent."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.cli import main
from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.exam import Outcome, Sex
from dicom_node.domain.record import ExamRecord, Heartbeat, ResultRecord, StageTimes
from tests.builders.records import record
from tests.peers.node import write_config
from tests.peers.postgres import Postgres, needs_postgres, running_centre

pytestmark = needs_postgres

SINCE, DAYS = datetime(2026, 5, 1, 3, tzinfo=UTC), 20
"""Midnight of 1 May in São Paulo."""
HEARTBEATS = 100


def day_of(item: ExamRecord) -> str:
    return item.received_at.astimezone(ZoneInfo("America/Sao_Paulo")).date().isoformat()


def made(number: int, chance: random.Random, region: str, node: str) -> ExamRecord:
    at = SINCE + timedelta(seconds=chance.uniform(0, DAYS * 86400))
    took = [round(chance.lognormvariate(-1, 0.8), 3) for _ in range(4)]
    assessed = chance.random() < 0.9
    [way] = record().deliveries
    item = record(
        number,
        region=region,
        node=node,
        received_at=at,
        institution_id=f"{region.lower()}-{chance.randrange(2)}",
        sex=chance.choice([Sex.FEMALE, Sex.MALE]),
        times=StageTimes(
            screen_seconds=took[0],
            infer_seconds=took[1],
            report_seconds=took[2],
            reported_at=at + timedelta(seconds=sum(took[:3])),
        ),
        deliveries=(replace(way, delivered_at=at + timedelta(seconds=sum(took))),),
        result=ResultRecord(
            bone_age_months=round(chance.uniform(20, 210), 1),
            sd_months=8.0,
            z_score=None,
            model=ModelIdentity(name="m", version="1", sha256="cd" * 32),
        ),
    )
    if assessed:
        return item
    reason = chance.choice(["no_hand", "sex_missing"])
    return replace(item, outcome=Outcome.NOT_ASSESSED, reason=reason, result=None)


@pytest.fixture(scope="module")
def sent() -> list[ExamRecord]:
    chance = random.Random(11)
    nodes = [("SP", "sp-1"), ("RJ", "rj-1")]
    return [made(number, chance, *nodes[number % 2]) for number in range(600)]


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory, sent: list[ExamRecord]) -> Iterator[Postgres]:
    with running_centre(tmp_path_factory.mktemp("centre")) as running:
        for region, node in (("SP", "sp-1"), ("RJ", "rj-1")):
            role = f"node_{region.lower()}"
            own = [item for item in sent if item.region == region]
            archive = PostgresArchive(running.url(role))
            archive.store(own, batch=1)
            archive.store(own[:50], batch=2)  # again
            for minute in range(HEARTBEATS if region == "SP" else 10):
                archive.beat(
                    Heartbeat(
                        region=region,
                        node=node,
                        version="1",
                        at=SINCE + timedelta(minutes=minute),
                        ready=minute % 10 != 0,
                        queued=minute,
                        parked=2,
                    )
                )
        yield running


@pytest.fixture(scope="module")
def config(centre: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = centre.url("analyst").replace("+psycopg2", "")
    folder = tmp_path_factory.mktemp("analyst")
    return str(write_config(folder, [], extra=f'[central]\nread_url = "{url}"\n'))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["--lang", "en", *arguments])


def read(config: str, name: str, *options: str) -> dict[str, list[dict[str, Any]]]:
    period = ("--since", "2026-05-01", "--until", "2026-05-21")
    said = run("report", name, *period, *options, "--config", config, "--json")
    assert said.exit_code == 0, said.output
    return dict(json.loads(said.output))


def test_usage_is_what_was_sent(config: str, sent: list[ExamRecord]) -> None:
    expected = Counter((day_of(i), i.region, i.institution_id) for i in sent)
    assessed = Counter(
        (day_of(i), i.region, i.institution_id) for i in sent if i.outcome is Outcome.ASSESSED
    )
    rows = read(config, "usage")["exams_a_day"]
    found = {(row["day"], row["region"], row["institution"]): row for row in rows}
    assert {key: row["exams"] for key, row in found.items()} == dict(expected)
    assert {key: row["assessed"] for key, row in found.items() if row["assessed"]} == dict(assessed)
    assert len(rows) == len(found)


def test_a_report_can_be_of_one_region_institution_and_time(
    config: str, sent: list[ExamRecord]
) -> None:
    rows = read(config, "usage", "--region", "RJ", "--institution", "rj-1")["exams_a_day"]
    own = [i for i in sent if i.institution_id == "rj-1"]
    assert sum(row["exams"] for row in rows) == len(own)
    said = run(
        "report", "usage", "--since", "2026-05-03", "--until", "2026-05-04", "--config", config,
        "--json",
    )  # fmt: skip
    found = json.loads(said.output)["exams_a_day"]
    assert sum(row["exams"] for row in found) == sum(day_of(i) == "2026-05-03" for i in sent)


def test_quality_counts_outcomes_and_bone_ages(config: str, sent: list[ExamRecord]) -> None:
    found = read(config, "quality")
    expected = Counter((str(i.outcome), i.reason) for i in sent)
    assert {(r["outcome"], r["reason"]): r["exams"] for r in found["outcomes"]} == dict(expected)
    assert sum(r["percent"] for r in found["outcomes"]) == pytest.approx(100, abs=0.1)
    girls = Counter(
        int(i.result.bone_age_months // 12) for i in sent if i.result and i.sex is Sex.FEMALE
    )
    counted = {r["bone_age_years"]: r["girls"] for r in found["bone_ages"] if r["girls"]}
    assert counted == dict(girls)


def test_latency_has_the_percentiles_of_each_stage(config: str, sent: list[ExamRecord]) -> None:
    rows = {row["stage"]: row for row in read(config, "latency")["seconds"]}
    assert list(rows) == ["screen", "infer", "report", "total"]
    total = [(i.deliveries[0].delivered_at - i.received_at).total_seconds() for i in sent]  # type: ignore[operator]
    seconds = {"infer": [i.times.infer_seconds for i in sent], "total": total}
    for stage, values in seconds.items():
        for percentile in (50, 95, 99):
            expected = float(np.percentile(np.array(values, dtype=float), percentile))
            assert rows[stage][f"p{percentile}"] == pytest.approx(expected, rel=1e-3)


def test_availability_counts_the_minutes_that_were_ready(config: str) -> None:
    rows = {row["region"]: row for row in read(config, "latency")["availability"]}
    assert rows["SP"]["ready_percent"] == pytest.approx(100 * 90 / 1440, abs=0.01)
    assert (rows["SP"]["most_queued"], rows["SP"]["most_parked"]) == (99, 2)


def test_cost_follows_prices_and_contracts(
    centre: Postgres, config: str, sent: list[ExamRecord], tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        "[prices]\ncompute = 0.12\nnetwork = 0.03\n[[contracts]]\nregion = 'SP'\n"
        "institution = 'sp-0'\nbrl_per_month = 1000.0\nbrl_per_exam = 2.5\n"
    )
    for _ in range(2):  # it replaces
        said = run("central", "prices", str(prices), "--url", centre.url())
        assert said.exit_code == 0, said.output
    rows = {row["institution"]: row for row in read(config, "cost")["months"]}
    own = [i for i in sent if i.institution_id == "sp-0"]
    assessed = sum(i.outcome is Outcome.ASSESSED for i in own)
    assert rows["sp-0"]["cost_brl"] == pytest.approx(0.15 * len(own))
    assert rows["sp-0"]["revenue_brl"] == pytest.approx(1000 + 2.5 * assessed)
    assert rows["sp-0"]["cost_brl_per_exam"] == pytest.approx(0.15)
    assert rows["rj-0"]["revenue_brl"] == 0


def test_a_wrong_price_list_changes_nothing(centre: Postgres, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    before = centre.sql("SELECT * FROM prices ORDER BY 1")
    for content in ("[prices]\ncoffee = 1.0\n", "[prices]\ncompute = -1.0\n", "no toml", "a = 1\n"):
        prices.write_text(content)
        said = run("central", "prices", str(prices), "--url", centre.url())
        assert said.exit_code == 1
    assert centre.sql("SELECT * FROM prices ORDER BY 1") == before


@pytest.mark.parametrize("name", ["usage", "quality", "latency", "cost"])
def test_reports_come_as_table_csv_and_picture(config: str, name: str, tmp_path: Path) -> None:
    period = ("--since", "2026-05-01", "--until", "2026-05-21")
    files = ("--csv", str(tmp_path / "csv"), "--png", str(tmp_path / "report.png"))
    said = run("report", name, *period, *files, "--config", config)
    assert said.exit_code == 0, said.output
    sections = read(config, name)
    for section, rows in sections.items():
        with (tmp_path / "csv" / f"{name}-{section}.csv").open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(rows) > 0
    with Image.open(tmp_path / "report.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1_000_000)
    assert colours is not None
    assert len(colours) > 20


def test_without_exams_a_report_says_so(config: str, tmp_path: Path) -> None:
    empty = ("--since", "2020-01-01", "--until", "2020-01-02")
    said = run("report", "usage", *empty, "--png", str(tmp_path / "a.png"), "--config", config)
    assert (said.exit_code, "none" in said.output) == (0, True)


def test_a_node_without_read_url_says_what_to_set(tmp_path: Path) -> None:
    said = run("report", "usage", "--config", str(write_config(tmp_path, [])))
    assert (said.exit_code, "central.read_url" in said.output) == (1, True)
