"""What the stages of an exam need from the outside world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from dicom_node.domain.assessment import Assessment, Note, Prediction, PriorResult
from dicom_node.domain.audit import AuditMessage
from dicom_node.domain.delivery import (
    NOTHING_DELIVERED,
    Answer,
    Delivery,
    PreviousReport,
    ReportKind,
    ReportObject,
)
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.exam import Exam, Header, Instance, Laterality, Receipt, Sex
from dicom_node.domain.job import Job, Stage
from dicom_node.domain.retry import Park, RetryAt


class Clock(Protocol):
    """Time and chance, so that decisions can be tested."""

    def now(self) -> datetime:
        """Aware UTC."""

    def fraction(self) -> float:
        """Uniform random number in 0..1."""


@dataclass(frozen=True, kw_only=True)
class KeptObject:
    """Bytes on stable storage."""

    content_sha256: str
    size_bytes: int


class Spool(Protocol):
    """Received objects on disk, named by the SHA-256 of their data set."""

    def keep(self, partial: Path, *, content_sha256: str | None = None) -> KeptObject:
        """Make a received DICOM file durable: fsync, rename, fsync of the folder.

        ``partial`` lies in the spool's own incoming folder and is consumed. The hash is taken over
        the data set without preamble and file meta information, unless it is known. Raises
        ``Transient`` (STORAGE_UNAVAILABLE) when the disk fails, ``Permanent`` (UNREADABLE_OBJECT)
        when it is no DICOM file.
        """

    def verify(self, content_sha256: str) -> None:
        """Hash a kept object again. Raises ``Permanent`` (CORRUPT_SPOOL) when it has changed or is
        missing."""

    def path(self, content_sha256: str) -> Path:
        """Path of a kept DICOM file (PS3.10). Raises ``Permanent`` (CORRUPT_SPOOL) when it is
        missing."""


class Quarantine(Protocol):
    """What was refused because it cannot be understood."""

    def keep(self, refused: Path) -> KeptObject | None:
        """Keep a second name of the file; None when the disk does not take it. Never raises."""


@dataclass(frozen=True, kw_only=True)
class Eligibility:
    """The result of screening as the ledger keeps it for the later stages.

    ``patient_pseudonym``: the same for all exams of a patient of the institution; None without a
    Patient ID.
    """

    study_instance_uid: str
    sex: Sex
    laterality: Laterality
    view_position: str
    chronological_age_months: float | None
    study_date: date | None
    patient_pseudonym: str | None
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One dated line of an exam's journey: a constant event name and identifiers, never patient
    data."""

    at: datetime
    event: str
    detail: str


class Ledger(Protocol):
    """The local database. Every method is one transaction; methods that take a job check its lease.

    A job is owned by the claim that last raised its ``attempt``; a write with an older attempt
    raises
    ``LeaseLost`` and changes nothing. All methods raise ``Transient`` (STORAGE_UNAVAILABLE) when
    the database
    cannot commit.
    """

    def record_instance(self, instance: Instance) -> tuple[int, Receipt]:
        """Enter a kept instance, its exam and job(SCREEN); return the exam's id.

        The same SOP Instance UID with the same content is a DUPLICATE: nothing changes, but that
        a sender which was UNKNOWN_SENDER is filled in and that a job which waited for the object
        (CORRUPT_SPOOL, INSTITUTION_UNKNOWN) is queued again. With other
        content it is a
        CONFLICT: the exam is entered with a parked job (CONFLICTING_CONTENT).
        """

    def claim(
        self,
        stages: Sequence[Stage],
        *,
        owner: str,
        lease_seconds: float,
        limit: int = 1,
        destination: str | None = None,
    ) -> list[Job]:
        """Lease up to ``limit`` due jobs of one of the stages (and of one destination, if given);
        later stages first, then the oldest.

        Leases that ran out are queued again first, or parked (CRASHED_REPEATEDLY) after three.
        """

    def expire_leases(self, owner: str) -> int:
        """A process that starts again under the same name gives up what it held when it died:
        as if those leases had run out. Returns how many there were."""

    def hurry(self, destination: str) -> int:
        """Jobs that wait because their destination did not answer are due now, the oldest first;
        returns how many there were."""

    def open_destinations(self) -> frozenset[str]:
        """Destinations that queued jobs name."""

    def exam(self, exam_id: int) -> Exam:
        """One exam. Raises ``KeyError`` when there is none."""

    def eligibility(self, exam_id: int) -> Eligibility | None:
        """What screening found, None when the exam was not eligible."""

    def prediction(self, exam_id: int) -> Prediction | None:
        """The stored prediction, None before or without one."""

    def complete_screen(self, job: Job, eligibility: Eligibility) -> None:
        """Eligible: store it and queue job(INFER)."""

    def complete_ignored(self, job: Job, reason: Reason, *, study_instance_uid: str) -> None:
        """Not ours: the exam ends as IGNORED."""

    def complete_not_assessed(
        self, job: Job, reason: Reason, *, study_instance_uid: str, report: bool
    ) -> None:
        """The exam ends as NOT_ASSESSED, without an earlier prediction; with ``report``,
        job(REPORT) is queued."""

    def complete_infer(self, job: Job, prediction: Prediction) -> None:
        """Store the prediction, in place of an earlier one, set the outcome ASSESSED and queue
        job(REPORT)."""

    def prior_results(self, exam_id: int) -> tuple[PriorResult, ...]:
        """What was assessed of the same patient at earlier study dates, oldest first; nothing
        without pseudonym or study date. Of an image that was corrected only what was reported
        last."""

    def previous_report(self, exam_id: int) -> PreviousReport | None:
        """The last report about the exam's SOP instance from its institution, None before the
        first: a corrected header or a new model makes a next one."""

    def complete_report(
        self,
        job: Job,
        objects: Sequence[ReportObject],
        destinations: Sequence[str],
        *,
        revision: int,
    ) -> None:
        """Store the encoded objects of this revision, those that are not stored yet, and queue one
        job(DELIVER) per destination."""

    def report_objects(self, exam_id: int) -> tuple[ReportObject, ...]:
        """The encoded objects of the last revision of an exam's report, in the order in which they
        were stored."""

    def record_delivery(self, job: Job, delivery: Delivery) -> None:
        """Store a destination's answer for one object."""

    def delivered(self, exam_id: int, destination: str) -> Mapping[str, Answer]:
        """What this destination has stored of all reports about the exam's SOP instance from its
        institution, earlier revisions too: SOP Instance UID, as made, to its answer."""

    def complete_deliver(self, job: Job, *, confirm: bool) -> None:
        """All objects are stored at the destination; with ``confirm``, job(CONFIRM) is queued."""

    def fail(self, job: Job, decision: RetryAt | Park) -> None:
        """Queue the job again or park it."""

    def is_own_report(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """One image to assess: a DICOM file and the patient's sex."""

    path: Path
    sex: Sex


class Predictor(Protocol):
    """The loaded model."""

    def predict(
        self, requests: Iterable[PredictionRequest]
    ) -> list[Prediction | Reason | Exception]:
        """One answer per request, in order: a prediction, why the pixels cannot be assessed, or a
        ``NodeError``. A request is taken when the one before is prepared."""


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What a report is made of.

    ``finding``: an assessment, or the reason why there is none. ``kinds``: which objects are
    wanted. ``previous``: the report that this one replaces. ``keep_character_set``: encode texts as
    the source does, where that has all their characters.
    """

    path: Path
    content_sha256: str
    finding: Assessment | Reason
    language: str
    reported_at: datetime
    kinds: frozenset[ReportKind] = frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE})
    previous: PreviousReport | None = None
    keep_character_set: bool = False


class Reporter(Protocol):
    """Builds report objects. The same request gives the same bytes."""

    def build(self, request: ReportRequest) -> tuple[ReportObject, ...]:
        """Encode the wanted objects of one report; those of ``request.previous`` when it says the
        same. Raises ``Permanent`` (REPORT_INVALID, UNREADABLE_OBJECT)."""


class ReportSender(Protocol):
    """C-STORE SCU for all destinations; keeps associations open while there is work."""

    def send(
        self,
        destination: str,
        report: ReportObject,
        delivered: Mapping[str, Answer] = NOTHING_DELIVERED,
    ) -> Answer:
        """Send one object as the first of its SOP classes that the destination accepts.

        ``delivered``: what it has stored before, for references to what the object replaces.

        Raises ``Transient`` (DESTINATION_UNAVAILABLE) when no answer came, ``Permanent``
        (DESTINATION_REFUSED) when the association was rejected permanently or nothing was accepted
        at all, and ``Permanent`` (DESTINATION_UNKNOWN) for a name that is not configured.
        """


class AuditTrail(Protocol):
    """The record of who did what with whose images (PS3.15 A.5)."""

    def record(self, message: AuditMessage) -> bool:
        """Put a message on stable storage. It raises nothing: False when the message is lost, which
        the log and the metrics say too."""


class HeaderReader(Protocol):
    """Reads a DICOM file's header without its pixels."""

    def __call__(self, path: Path) -> Header:
        """Raises ``Permanent`` (UNREADABLE_OBJECT), and ``Transient`` (STORAGE_UNAVAILABLE) when
        the disk fails."""
