"""DELIVER on fakes: every answer of a destination, and what becomes of the job."""

from __future__ import annotations

from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.errors import Fault, Transient
from dicom_node.domain.job import JobState, Stage
from tests.fakes.stage_ports import (
    ScriptedSender,
)
from tests.fakes.staged_node import Node


def test_an_unavailable_destination_is_tried_again_and_only_what_is_missing_is_sent() -> None:
    down = Transient(Fault.DESTINATION_UNAVAILABLE, "connection refused")
    node = Node(sender=ScriptedSender([0x0000, down]))
    node.receive("hand")
    node.run()
    assert [job.fault for job in node.jobs(JobState.QUEUED)] == [Fault.DESTINATION_UNAVAILABLE]
    node.clock.advance(60)
    node.run()
    assert [uid for _, uid in node.sender.sent] == ["2.25.1.0", "2.25.1.1", "2.25.1.1"]
    assert node.jobs(JobState.QUEUED) == []


def test_a_refused_object_does_not_hold_up_the_others() -> None:
    node = Node(sender=ScriptedSender([0xC000]))
    node.receive("hand")
    node.run()
    assert [uid for _, uid in node.sender.sent] == ["2.25.1.0", "2.25.1.1"]
    assert [job.fault for job in node.jobs(JobState.QUEUED)] == [Fault.DESTINATION_REFUSED]


def test_a_destination_gets_only_the_kinds_of_objects_it_wants() -> None:
    node = Node(kinds=(ReportKind.NARRATIVE,))
    node.receive("hand")
    node.run()
    assert node.sender.sent == [("pacs", "2.25.1.1")]
    assert len(node.jobs(JobState.DONE)) == 4


def test_a_refusing_destination_is_tried_three_times_and_then_parked() -> None:
    node = Node(sender=ScriptedSender([0xC000, 0x0000, 0xA900, 0x0124]))
    node.receive("hand")
    for _ in range(3):
        node.run()
        node.clock.advance(3600)
    assert len(node.sender.sent) == 4
    [parked] = node.jobs(JobState.PARKED)
    assert parked.fault is Fault.DESTINATION_REFUSED
    assert "0124" in parked.detail


def test_an_object_that_no_sop_class_fits_stays_away_when_another_one_arrives() -> None:
    node = Node(sender=ScriptedSender([0x0122, 0x0000]))
    node.receive("hand")
    node.run()
    assert node.finished[-1] is Stage.DELIVER
    assert len(node.sender.sent) == 2
    assert node.jobs(JobState.PARKED) == []


def test_a_destination_that_takes_no_object_at_all_needs_a_person() -> None:
    node = Node(sender=ScriptedSender([0x0122] * 20))
    node.receive("hand")
    for _ in range(3):
        node.run()
        node.clock.advance(3600)
    [parked] = node.jobs(JobState.PARKED)
    assert parked.fault is Fault.DESTINATION_REFUSED
    assert "none of the SOP classes" in parked.detail


def test_an_object_that_arrived_before_is_enough() -> None:
    node = Node(sender=ScriptedSender([0x0000, Transient(Fault.DESTINATION_UNAVAILABLE, "gone")]))
    node.receive("hand")
    node.run()
    node.sender.script = [0x0122]
    node.clock.advance(3600)
    node.run()
    assert node.finished[-1] is Stage.DELIVER


def test_a_report_without_its_picture_waits_for_it_and_then_goes_without() -> None:
    """The reporter on fakes draws nothing."""
    wishes = frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE, ReportKind.CAPTURE})
    node = Node(wishes=wishes)
    node.receive("hand")
    for expected in (0, 0, 2):
        node.run()
        assert len(node.sender.sent) == expected
        node.clock.advance(60)
    assert len(node.reporter.requests) == 3
    assert node.jobs(JobState.PARKED) == []


def test_a_destination_of_pictures_only_does_not_end_without_one() -> None:
    node = Node(kinds=(ReportKind.CAPTURE,), wishes=frozenset(ReportKind))
    node.receive("hand")
    for _ in range(4):
        node.run()
        node.clock.advance(60)
    [parked] = node.jobs(JobState.PARKED)
    assert parked.stage is Stage.DELIVER
    assert parked.fault is Fault.PICTURE_NOT_DRAWN


def test_the_trail_is_told_once_of_what_was_sent_and_of_what_was_refused() -> None:
    node = Node(sender=ScriptedSender([0xC000]))
    node.receive("hand")
    node.run()
    assert node.transfers == [("pacs", 1, False), ("pacs", 1, True)]
    node.clock.advance(3600)
    node.run()
    assert node.transfers[2:] == [("pacs", 1, False)]


def test_the_trail_is_told_of_what_was_sent_before_the_destination_went_away() -> None:
    down = Transient(Fault.DESTINATION_UNAVAILABLE, "connection refused")
    node = Node(sender=ScriptedSender([0x0000, down, down, 0x0000]))
    node.receive("hand")
    for _ in range(3):
        node.run()
        node.clock.advance(3600)
    assert node.transfers == [("pacs", 1, False), ("pacs", 1, False)]


def test_after_a_crash_the_trail_is_told_of_everything_that_a_destination_has() -> None:
    down = Transient(Fault.DESTINATION_UNAVAILABLE, "connection refused")
    node = Node(sender=ScriptedSender([0x0000, down]))
    node.receive("hand")
    node.run()
    node.clock.advance(3600)
    node.ledger.claim([Stage.DELIVER], owner="dies", lease_seconds=1, destination="pacs")
    for _ in range(2):
        node.clock.advance(3600)
        node.run()
    assert node.transfers == [("pacs", 1, False), ("pacs", 2, False)]
