"""`dicom-node central` as its users run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlLedger
from dicom_node.adapters.ledger.migrate import migrate
from dicom_node.cli import main
from dicom_node.domain.job import Stage
from tests.builders.exams import exam_before
from tests.integration.peers import free_port
from tests.peers.node import write_config
from tests.peers.postgres import Postgres, needs_postgres, running_postgres

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("centre")) as running:
        yield running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["--lang", "en", "central", *arguments])


def site(folder: Path, url: str) -> str:
    """The configuration of a node with one exam that waits for the centre."""
    config = write_config(
        folder,
        [],
        node='name = "sp-1"\nregion = "SP"',
        extra=f'[central]\nurl = "{url}"\n[[institutions]]\nid = "hospital-a"\nname = "A"\n'
        'calling_ae_titles = ["CR"]\n',
    )
    path = folder / "data" / "ledger.sqlite"
    migrate(path)
    ledger = SqlLedger(path, SystemClock())
    exam_before(ledger, Stage.REPORT)
    ledger.close()
    return str(config)


def test_the_way_of_an_administrator(centre: Postgres, tmp_path: Path) -> None:
    said = run("migrate", "--url", centre.url())
    assert (said.exit_code, said.output.strip()) == (
        0,
        "The central database has revision c0003.",
    )
    config = site(tmp_path / "node", centre.url("node_sp").replace("+psycopg2", ""))
    centre.sql("CREATE ROLE node_sp LOGIN IN ROLE bone_age_node")
    refused = run("status", "--config", config)
    assert refused.exit_code == 1
    assert "admit_node" in refused.output
    centre.sql("SELECT admit_node('node_sp', 'SP', 'sp-1')")
    found = json.loads(run("status", "--config", config, "--json").output)
    assert found == found | {"waiting": 1, "refused": 0, "last_batch_there": 0, "problem": None}
    assert found["oldest_at"]
    assert "1 exams wait" in run("status", "--config", config).output
    assert "1 exams are sent" in run("replay", "--since", "2020-01-01", "--config", config).output
    renewed = run("renew-key", "hospital-a", "--config", config)
    assert renewed.exit_code == 0
    [key] = (tmp_path / "node" / "data" / "keys" / "central" / "hospital-a").iterdir()
    assert key.stat().st_size == 32
    assert re.search(r"key [0-9a-f]{16} ", renewed.output)
    unknown = run("renew-key", "hospital-x", "--config", config)
    assert (unknown.exit_code, "hospital-x" in unknown.output) == (1, True)


def test_a_centre_that_is_away_is_said_in_words(tmp_path: Path) -> None:
    config = site(tmp_path / "node", f"postgresql://node_sp@127.0.0.1:{free_port()}/bone_age")
    said = run("status", "--config", config)
    assert said.exit_code == 1
    assert "1 exams wait" in said.output
    assert "Connection refused" in said.output
    migrated = run("migrate", "--url", f"postgresql://owner@127.0.0.1:{free_port()}/bone_age")
    assert migrated.exit_code == 1
    assert "Connection refused" in migrated.output


def test_without_a_centre_there_is_nothing_to_ask(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, []))
    for command in (("status",), ("replay", "--since", "2026-01-01"), ("renew-key", "a")):
        said = run(*command, "--config", config)
        assert said.exit_code == 1


def test_a_password_does_not_belong_into_the_configuration(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, [], extra='[central]\nurl = "postgresql://me:secret@centre/bone_age"\n'
    )
    said = run("status", "--config", str(config))
    assert said.exit_code == 2
    assert "central.password_file" in said.output
    assert "secret" not in said.output
