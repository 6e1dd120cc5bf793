"""Images, reports and refused files go when their time is over, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import SqlPromises
from dicom_node.domain.commitment import CommitmentRequest, Reference
from dicom_node.domain.exam import Outcome, Receipt
from dicom_node.domain.job import ForbiddenTransition, Stage
from dicom_node.domain.retention import FOR_EVER, ArchiveRule, Retention
from dicom_node.stages.purge import Purged
from tests.builders.exams import claim_one, complete, instance, park
from tests.builders.radiographs import radiograph
from tests.builders.retention import DAY, Keeper, keeper

NOTHING = Purged(images=0, image_bytes=0, reports=0, quarantined=0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Keeper]:
    with keeper(tmp_path) as opened:
        yield opened


def test_an_image_goes_when_its_days_are_over_and_its_exam_stays(node: Keeper) -> None:
    path = node.ended(1)
    size = path.stat().st_size
    node.clock.advance(7 * DAY - 1)
    assert node.purge()() == NOTHING
    node.clock.advance(2)
    assert node.purge()() == Purged(images=1, image_bytes=size, reports=0, quarantined=0)
    assert not path.exists()
    details = node.operator.exam_details(1)
    assert details.exam.outcome is Outcome.ASSESSED
    assert details.prediction is not None
    assert details.image_purged_at == node.clock.now()
    assert all(report.size_bytes > 0 for report in details.reports)
    assert node.events(1)[-1] == "image_purged"
    assert node.told.purged == [(1, "image")]
    assert node.purge()() == NOTHING


def test_reports_go_by_their_own_days_counted_from_the_end_of_the_exam(node: Keeper) -> None:
    node.ended(1)
    node.clock.advance(8 * DAY)
    assert node.purge()().images == 1
    node.clock.advance(82 * DAY - 1)
    assert node.purge()() == NOTHING
    node.clock.advance(2)
    assert node.purge()() == Purged(images=0, image_bytes=0, reports=1, quarantined=0)
    details = node.operator.exam_details(1)
    assert [report.size_bytes for report in details.reports] == [0, 0]
    assert {report.purged_at for report in details.reports} == {node.clock.now()}
    assert node.events(1)[-1] == "reports_purged"
    assert node.told.purged[-1] == (1, "reports")


@pytest.mark.parametrize("steps", range(4))
def test_an_exam_with_an_open_job_keeps_everything(node: Keeper, steps: int) -> None:
    path = node.arrive(1)
    for stage in (Stage.SCREEN, Stage.INFER, Stage.REPORT)[:steps]:
        complete(node.ledger, claim_one(node.ledger, stage))
    node.clock.advance(1000 * DAY)
    assert node.purge()() == NOTHING
    assert path.is_file()


def test_a_parked_job_keeps_everything_until_it_is_settled(node: Keeper) -> None:
    path = node.arrive(1)
    job_id = park(node.ledger)
    node.clock.advance(1000 * DAY)
    assert node.purge()() == NOTHING
    node.operator.retry_job(job_id)
    node.end()
    assert node.purge()() == NOTHING  # its days begin now
    node.clock.advance(8 * DAY)
    assert node.purge()().images == 1
    assert not path.exists()


def test_every_institution_has_its_own_days(node: Keeper) -> None:
    short = node.ended(1, "short")
    long = node.ended(2, "long")
    always = node.ended(3, "always")
    other = node.ended(4)
    own = {
        "short": Retention(images_days=1, reports_days=1),
        "long": Retention(images_days=30, reports_days=30),
        "always": Retention(images_days=FOR_EVER, reports_days=FOR_EVER),
    }
    purge = node.purge(institutions=own)
    left = {short: "short", long: "long", always: "always", other: "other"}

    def here() -> set[str]:
        return {name for path, name in left.items() if path.exists()}

    node.clock.advance(2 * DAY)
    assert (purge().reports, here()) == (1, {"long", "always", "other"})
    node.clock.advance(6 * DAY)
    assert (purge().reports, here()) == (0, {"long", "always"})
    node.clock.advance(30 * DAY)
    assert (purge().reports, here()) == (1, {"always"})
    node.clock.advance(10_000 * DAY)
    assert (purge().reports, here()) == (1, {"always"})


def test_for_ever_is_for_ever_but_for_those_with_days(node: Keeper) -> None:
    kept, gone = node.ended(1), node.ended(2, "short")
    node.clock.advance(1000 * DAY)
    own = {"short": Retention(images_days=1, reports_days=FOR_EVER)}
    done = node.purge(images=FOR_EVER, reports=FOR_EVER, institutions=own)()
    assert (done.images, done.reports) == (1, 0)
    assert kept.is_file()
    assert not gone.exists()


def test_what_the_node_committed_to_stays(node: Keeper) -> None:
    path, other = node.ended(1), node.ended(2, "hospital-2")
    promises = SqlPromises(node.folder / "ledger.sqlite", node.clock)
    reference = Reference(
        sop_class_uid=instance(1).sop_class_uid, sop_instance_uid=instance(1).sop_instance_uid
    )
    request = CommitmentRequest(transaction_uid="1.2.3", references=(reference,))
    promises.promise(request, ae_title="MODALITY", institution_id="hospital-1")
    node.clock.advance(1000 * DAY)
    assert node.purge()().images == 1
    assert path.is_file()
    assert not other.exists()
    [promise] = promises.open(["MODALITY"], due=False)
    assert len(promises.holdings(promise)) == 1
    promises.close()


def test_nothing_is_purged_that_belongs_into_the_archive_and_is_not_there(node: Keeper) -> None:
    path = node.ended(1)
    node.clock.advance(1000 * DAY)
    with_images = ArchiveRule(images_of=frozenset({Outcome.ASSESSED}))
    assert node.purge(archived=with_images)() == NOTHING
    reports_only = ArchiveRule(images_of=frozenset())
    assert node.purge(archived=reports_only)() == Purged(
        images=1, image_bytes=instance_size(node), reports=0, quarantined=0
    )
    assert not path.exists()


def instance_size(node: Keeper) -> int:
    return node.ledger.exam(1).instance.size_bytes


def test_a_dry_run_counts_and_removes_nothing(node: Keeper) -> None:
    path = node.ended(1)
    refused = refuse(node)
    node.clock.advance(1000 * DAY)
    would = node.purge()(dry_run=True)
    assert (would.images, would.reports, would.quarantined) == (1, 1, 1)
    assert path.is_file()
    assert list(node.quarantine.folder.iterdir()) == [refused]
    assert node.told.purged == []
    assert node.purge()() == would


def refuse(node: Keeper) -> Path:
    garbage = node.spool.arriving() / "garbage"
    garbage.write_bytes(b"%PDF-1.7")
    kept = node.quarantine.keep(garbage)
    assert kept is not None
    path = node.quarantine.folder / f"{kept.content_sha256}.dcm"
    node.touch(path)
    return path


def test_files_of_the_quarantine_go_by_age(node: Keeper) -> None:
    refused = refuse(node)
    node.clock.advance(30 * DAY - 1)
    assert node.purge()().quarantined == 0
    node.clock.advance(2)
    assert node.purge()().quarantined == 1
    assert not refused.exists()


def test_exams_are_read_in_pages(node: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.stages.purge._AT_ONCE", 2)
    paths = [node.ended(number) for number in range(1, 6)]
    node.clock.advance(8 * DAY)
    node.touch(paths[1])  # it stays, and stands in no other's way
    assert node.purge()().images == 4
    assert [path.exists() for path in paths] == [False, True, False, False, False]


def test_a_purge_that_is_stopped_goes_on_the_next_time(node: Keeper) -> None:
    for number in (1, 2, 3):
        node.ended(number)
    node.clock.advance(8 * DAY)
    answers = iter([False, True, True])
    assert node.purge()(stopping=lambda: next(answers)).images == 1
    assert node.purge()().images == 2


def test_an_image_that_is_sent_again_is_used_again_until_the_next_purge(node: Keeper) -> None:
    node.ended(1)
    node.clock.advance(8 * DAY)
    node.purge()()
    with pytest.raises(ForbiddenTransition, match="archive restore 1"):
        node.operator.reassess(1)
    partial = node.spool.arriving() / "image.dcm"
    radiograph(1).save_as(partial, enforce_file_format=True)
    kept = node.spool.keep(partial)
    _, receipt = node.ledger.record_instance(node.ledger.exam(1).instance)
    assert receipt is Receipt.DUPLICATE
    assert node.operator.exam_details(1).image_purged_at is None
    node.operator.reassess(1)
    node.end()
    node.clock.advance(8 * DAY)
    node.touch(node.spool.path(kept.content_sha256))
    assert node.purge()() == NOTHING  # it arrived again within the hour
    node.clock.advance(DAY)
    assert node.purge()().images == 1


def test_an_image_that_arrives_while_it_is_purged_stays(node: Keeper) -> None:
    path = node.ended(1)
    content = path.read_bytes()
    node.clock.advance(8 * DAY)

    def arrives_meanwhile() -> bool:
        removed = node.spool.remove(path.stem, since=node.clock.now())
        path.write_bytes(content)
        return removed

    assert node.records.purge_image(1, arrives_meanwhile)
    node.ledger.record_instance(node.ledger.exam(1).instance)
    assert node.operator.exam_details(1).image_purged_at is None
    assert path.read_bytes() == content


def test_a_crash_between_file_and_ledger_is_mended_at_the_start(node: Keeper) -> None:
    path = node.ended(1)
    path.replace(path.parents[2] / "leaving" / path.name)
    assert node.spool.sweep() == {path.stem}
    assert path.is_file()
    assert list((path.parents[2] / "leaving").iterdir()) == []


def test_an_image_that_is_missing_counts_as_purged(node: Keeper) -> None:
    path = node.ended(1)
    path.unlink()
    node.clock.advance(8 * DAY)
    assert node.purge()().images == 1
    assert node.events(1)[-1] == "image_purged"
