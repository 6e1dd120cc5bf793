"""Reports and chosen images go to an S3-compatible store, and come back as they were."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.object_store import S3ObjectStore
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.domain.errors import Fault, NodeError, Permanent, Transient
from dicom_node.domain.exam import Outcome
from dicom_node.domain.retention import ArchiveRule
from dicom_node.housekeeping import housekeeping_tasks
from dicom_node.logs import configure_logging
from dicom_node.settings import load_settings
from dicom_node.stages.archive import Archive, Moved
from dicom_node.wiring import Wiring
from tests.builders.radiographs import radiograph_files
from tests.builders.retention import DAY, Keeper, keeper
from tests.integration.peers import free_port
from tests.peers.node import Node, running_node, write_config
from tests.peers.s3 import BUCKET, Store, running_store

REPORTS_ONLY = ArchiveRule(images_of=frozenset())
WITH_IMAGES = ArchiveRule(images_of=frozenset({Outcome.ASSESSED}))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Keeper]:
    with keeper(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(one_store: Store) -> Store:
    for key in one_store.names():
        one_store.client.delete_object(Bucket=BUCKET, Key=key)
    return one_store


def connected(
    url: str, credentials: Path | None, *, bucket: str = BUCKET, prefix: str = "sp/"
) -> S3ObjectStore:
    return S3ObjectStore(
        bucket=bucket,
        endpoint_url=url,
        region="sa-east-1",
        prefix=prefix,
        credentials_file=credentials,
        ca=None,
    )


def archive(node: Keeper, store: Store, rule: ArchiveRule = WITH_IMAGES) -> Archive:
    opened = connected(store.endpoint_url, store.credentials_file)
    node.closing.callback(opened.close)
    return node.archive(opened, rule)


def key_of(store: Store, kind: str) -> str:
    [key] = [key for key in store.names() if f"/{kind}/" in key][:1]
    return key


def test_reports_and_images_of_ended_exams_are_archived_once(node: Keeper, store: Store) -> None:
    path = node.ended(1)
    node.arrive(2)  # has not ended
    run = archive(node, store)
    assert run() == Moved(images=1, reports=2)
    assert run() == Moved()
    encoded = {
        f"sp/sp-1/2026/03/01/reports/{item.report.sop_instance_uid}.dcm": item.report.encoded
        for item in node.records.reports_of(1)
    }
    image = f"sp/sp-1/2026/03/01/images/{path.stem}.dcm"
    assert store.names() == sorted([*encoded, image])
    assert store.read(image) == path.read_bytes()
    assert {key: store.read(key) for key in encoded} == encoded
    assert node.told.exported == [(1, "reports"), (1, "image")]
    assert node.events(1)[-3:] == ["archived"] * 3
    assert run.verify(1) == Moved(images=1, reports=2)


def test_images_of_other_outcomes_stay_here(node: Keeper, store: Store) -> None:
    node.ended(1)
    assert archive(node, store, REPORTS_ONLY)() == Moved(images=0, reports=2)
    assert all("/reports/" in key for key in store.names())


def test_what_was_purged_comes_back_as_it_was(node: Keeper, store: Store) -> None:
    path = node.ended(1)
    image = path.read_bytes()
    before = [item.report for item in node.records.reports_of(1)]
    run = archive(node, store)
    run()
    node.clock.advance(100 * DAY)
    done = node.purge(archived=WITH_IMAGES)()
    assert (done.images, done.reports) == (1, 1)
    assert not path.exists()
    assert run.restore(1) == Moved(images=1, reports=2)
    assert path.read_bytes() == image
    assert [item.report for item in node.records.reports_of(1)] == before
    assert node.operator.exam_details(1).image_purged_at is None
    assert run.restore(1) == Moved()
    assert list(node.spool.incoming.iterdir()) == []
    node.touch(path)
    assert node.purge(archived=WITH_IMAGES)().images == 0  # its days begin again
    node.operator.reassess(1)


@pytest.mark.parametrize("kind", ["images", "reports"])
def test_a_damaged_copy_is_found_and_changes_nothing(node: Keeper, store: Store, kind: str) -> None:
    path = node.ended(1)
    run = archive(node, store)
    run()
    node.clock.advance(100 * DAY)
    node.purge(archived=WITH_IMAGES)()
    key = key_of(store, kind)
    good = store.read(key)
    store.write(key, good[:-1] + b"\0", Metadata={"sha256": "0" * 64})
    with pytest.raises(Permanent, match=r"s3://bone-age/sp/.* is not what was archived") as caught:
        run.verify(1)
    assert caught.value.fault is Fault.ARCHIVE_DAMAGED
    with pytest.raises(Permanent):
        run.restore(1)
    if kind == "images":
        assert not path.exists()
    store.write(key, good, Metadata=metadata(good))
    assert run.restore(1).reports > 0
    assert path.is_file()


def metadata(content: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("kind", ["images", "reports"])
def test_another_object_in_its_place_is_found(node: Keeper, store: Store, kind: str) -> None:
    node.ended(1)
    other = node.ended(2).read_bytes()
    run = archive(node, store)
    run()
    node.clock.advance(100 * DAY)
    node.purge(archived=WITH_IMAGES)()
    for key in store.names():
        if f"/{kind}/" in key:
            store.write(key, other[:-4] + b"\1\2\3\4", Metadata=metadata(other[:-4] + b"\1\2\3\4"))
    with pytest.raises(Permanent, match="another object"):
        run.restore(1)
    assert node.operator.exam_details(1).image_purged_at is not None or kind == "reports"
    assert list(node.spool.incoming.iterdir()) == []


def test_an_object_that_is_gone_is_named(node: Keeper, store: Store) -> None:
    node.ended(1)
    run = archive(node, store)
    run()
    key = key_of(store, "images")
    store.client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(Permanent, match=f"s3://bone-age/{key} is not in the archive any more"):
        run.verify(1)


def test_a_missing_image_holds_up_no_other(node: Keeper, store: Store) -> None:
    node.ended(1).unlink()
    node.ended(2)
    assert archive(node, store)() == Moved(images=1, reports=4)
    node.clock.advance(1000 * DAY)
    assert node.purge(archived=WITH_IMAGES)().images == 1


def test_exams_are_read_in_pages(
    node: Keeper, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.stages.archive._AT_ONCE", 2)
    paths = [node.ended(number) for number in range(1, 7)]
    paths[1].unlink()
    assert archive(node, store)() == Moved(images=5, reports=12)


def wrong(tmp_path: Path, store: Store, which: str) -> S3ObjectStore:
    url, credentials = store.endpoint_url, store.credentials_file
    match which:
        case "bucket":
            return connected(url, credentials, bucket="another-bucket")
        case "no file":
            return connected(url, tmp_path / "missing")
        case _:
            return connected(f"http://127.0.0.1:{free_port()}", credentials)


@pytest.mark.parametrize(
    ("which", "kind", "fault", "words"),
    [
        ("bucket", Permanent, Fault.ARCHIVE_REFUSED, "NoSuchBucket"),
        ("no file", Permanent, Fault.ARCHIVE_REFUSED, "is no credentials file"),
        ("away", Transient, Fault.ARCHIVE_UNAVAILABLE, "does not answer"),
    ],
)
def test_an_archive_that_cannot_be_used_says_why(
    tmp_path: Path,
    node: Keeper,
    store: Store,
    which: str,
    kind: type[NodeError],
    fault: Fault,
    words: str,
) -> None:
    node.ended(1)
    opened = wrong(tmp_path, store, which)
    node.closing.callback(opened.close)
    run = node.archive(opened, WITH_IMAGES)
    with pytest.raises(kind, match=words) as caught:
        run()
    assert caught.value.fault is fault
    assert node.purge(archived=WITH_IMAGES)().images == 0
    assert archive(node, store)() == Moved(images=1, reports=2)


def test_a_whole_node_archives_purges_and_restores(tmp_path: Path) -> None:
    with running_store(tmp_path / "store") as store:
        extra = store.configuration(images='["assessed"]') + "[inference]\nworkers = 1\n"
        write_config(tmp_path / "node", [], extra=extra)
        with running_node(tmp_path / "node") as node:
            data = node.settings.node.data_dir
            files = radiograph_files(tmp_path / "hands", 2)
            assert send(node, files) == [0, 0]
            node.wait_until_idle(90)
            age(node, days=10)
            assert node.command("purge", "--json")["images"] == 0  # the archive comes first
            done = node.command("archive", "run", "--json")
            assert done == {"images": 2, "reports": 4, "failed": {}}
            assert node.command("purge", "--dry-run", "--json")["images"] == 2
            assert node.command("purge", "--json")["images"] == 2
            assert list((data / "spool" / "objects").glob("*/*.dcm")) == []
            assert send(node, files[:1]) == [0]  # a duplicate, which makes no second report
            restored = node.command("archive", "restore", "1", "2", "--json")
            assert restored == {"images": 1, "reports": 0, "failed": {}}
            verified = node.command("archive", "verify", "--since", "2020-01-01", "--json")
            assert verified == {"images": 2, "reports": 4, "failed": {}}
            shown = node.command("exam", "show", "1", "--json")
            assert [entry["event"] for entry in shown["journal"]].count("reported") == 1
        audit = "".join(path.read_text() for path in (data / "audit").rglob("*.log"))
        assert audit.count("DICOM Study Deleted") == 2
        assert audit.count('originalText="Export"') == 4
        assert "s3://bone-age/" in audit


def send(node: Node, files: list[Path]) -> list[int]:
    answers = send_files(files, node.peer, calling_ae_title="CR")
    return [answer.status for answer in answers if answer.status is not None]


def age(node: Node, *, days: int) -> None:
    """As if all that is there had happened so long ago."""
    data = node.settings.node.data_dir
    with sqlite3.connect(data / "ledger.sqlite", timeout=30) as ledger:
        ledger.execute("UPDATE instances SET received_at = received_at - ?", (days * DAY,))
        ledger.execute("UPDATE journal SET at = at - ?", (days * DAY,))
    for path in (data / "spool" / "objects").glob("*/*.dcm"):
        os.utime(path, (time.time() - days * DAY,) * 2)


def test_an_archive_that_is_away_is_said_once_and_gets_everything_later(
    tmp_path: Path, node: Keeper, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with running_store(tmp_path / "store", port) as store:
        config = tmp_path / "node.toml"
        data = f"[node]\ndata_dir = {json.dumps(str(node.folder))}\n"
        config.write_text(data + store.configuration())
    wiring = Wiring(load_settings(config))
    stop = threading.Event()
    [archives] = [task for task in housekeeping_tasks(wiring, stop) if task.name == "archive"]
    node.ended(1)
    configure_logging("delivery-0")
    for _ in range(2):
        archives.run()
    with running_store(tmp_path / "store", port) as store:
        archives.run()
        archives.run()
        assert len(store.names()) == 2
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["archive_silent", "archived", "archive_returned"]
    assert lines[0]["fault"] == "archive_unavailable"
