"""What the stages need from the outside world: small Protocols, one adapter each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from dicom_node.domain.assessment import Assessment, Note, Prediction, PriorResult
from dicom_node.domain.commitment import (
    CommitmentRequest,
    CommitmentResult,
    Evidence,
    Promise,
    Reference,
    SentObject,
)
from dicom_node.domain.delivery import (
    NOTHING_DELIVERED,
    Answer,
    Delivery,
    PreviousReport,
    ReportKind,
    ReportObject,
)
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Exam, Header, Instance, Laterality, Receipt, Sex
from dicom_node.domain.job import Job, Stage
from dicom_node.domain.record import DeliveryRecord, ExamRecord, Heartbeat, StageTimes
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

    def keep(self, partial: Path) -> KeptObject:
        """Make a received DICOM file durable: fsync, rename, fsync of the folder.

        ``partial`` lies in the spool's own incoming folder and is consumed. The hash is taken over
        the data set without preamble and file meta information. Raises ``Transient``
        (STORAGE_UNAVAILABLE) when the disk fails, ``Permanent`` (UNREADABLE_OBJECT) when it is no
        DICOM file.
        """

    def verify(self, content_sha256: str) -> None:
        """Hash a kept object again. Raises ``Permanent`` (CORRUPT_SPOOL) when it has changed or is
        missing."""

    def path(self, content_sha256: str) -> Path:
        """Path of a kept DICOM file (PS3.10). Raises ``Permanent`` (CORRUPT_SPOOL) when it is
        missing."""


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


class Commitments(Protocol):
    """What destinations prove about delivered reports. Every method is one transaction on the
    ledger and raises what the ledger's do."""

    def unproven(self, job: Job) -> tuple[SentObject, ...]:
        """The objects of the exam's last report that the job's destination has answered with
        success and that are not known to be kept."""

    def asked_at(self, job: Job) -> datetime | None:
        """When the destination was last asked to commit to them without having answered."""

    def ask(self, job: Job, transaction_uid: str) -> None:
        """Remember a request before it is sent: its result may come at once, to another
        process."""

    def record(self, job: Job, evidence: Mapping[str, Evidence]) -> None:
        """What a query found: SOP Instance UID, as sent, to evidence."""

    def record_result(self, result: CommitmentResult) -> bool:
        """A destination's result. False: nobody has asked for it."""

    def complete(self, job: Job) -> None:
        """Nothing is left to prove."""

    def send_again(self, job: Job, lost: Sequence[SentObject]) -> None:
        """Forget that these were stored, and queue job(DELIVER) again."""


class Promises(Protocol):
    """What others asked the node to commit to. Every method is one transaction on the ledger and
    raises what the ledger's do."""

    def promise(self, request: CommitmentRequest, *, ae_title: str, institution_id: str) -> None:
        """Remember a request, on stable storage; the same one again changes nothing."""

    def open(self, ae_titles: Sequence[str], *, due: bool) -> tuple[Promise, ...]:
        """Requests of these requesters that wait for their result, the oldest first; with ``due``
        only those for which it is time to open an association."""

    def holdings(self, promise: Promise) -> tuple[Holding, ...]:
        """What the node received of the objects that a request names, from its institution."""

    def answered(self, promise: Promise) -> None:
        """The requester has the result."""

    def failed(self, promise: Promise, *, run_after: datetime | None) -> None:
        """The result did not arrive; None: it is not tried again."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """An instance in the spool."""

    reference: Reference
    content_sha256: str


@dataclass(frozen=True, kw_only=True)
class Forwardable:
    """What the ledger knows of an exam that the centre may learn, before pseudonyms. ``change``:
    how often it has changed."""

    exam: Exam
    change: int
    eligibility: Eligibility | None
    prediction: Prediction | None
    times: StageTimes
    object_kinds: tuple[ReportKind, ...]
    deliveries: tuple[DeliveryRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What the centre does not have yet. ``oldest_at``: since when, None when nothing waits."""

    waiting: int
    oldest_at: datetime | None
    refused: int


class Outbox(Protocol):
    """What the centre has still to learn. Every method is one transaction on the ledger and raises
    what the ledger's do."""

    def waiting(self, limit: int) -> tuple[Forwardable, ...]:
        """Exams whose facts the centre does not have, those that wait longest first."""

    def forwarded(self, changes: Mapping[int, int], *, batch: int) -> None:
        """The centre has these exams (id to change), by this batch."""

    def refused(self, exam_id: int, fault: Fault) -> None:
        """The centre will not take these facts; they wait until they change or are replayed."""

    def last_batch(self) -> int:
        """The last batch that the centre has acknowledged, 0 before the first."""

    def forget_after(self, batch: int) -> int:
        """The centre has lost the batches after this one: their exams wait again; how many."""


class CentralArchive(Protocol):
    """The centre. All methods raise ``Transient`` (CENTRAL_UNAVAILABLE) when it does not answer
    and ``Permanent`` (CENTRAL_REFUSED) when it does not let this node in."""

    def last_batch(self) -> int:
        """The last batch of this node that the centre has, 0 before the first."""

    def store(self, records: Sequence[ExamRecord], *, batch: int) -> None:
        """Insert or replace these exams, all or none. Storing them again changes nothing.

        Raises ``Permanent`` (RECORD_REFUSED) for values that its constraints do not allow.
        """

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the node runs."""


class ExamPseudonyms(Protocol):
    """Names of exams and patients for the centre, with keys that stay in the region."""

    def of(self, exam: Exam, patient_pseudonym: str | None) -> CentralNames:
        """Always the same for an exam."""


@dataclass(frozen=True, kw_only=True)
class CentralNames:
    """64 hexadecimal digits each, 16 for the key's name."""

    exam_pseudonym: str
    patient_pseudonym: str | None
    key_id: str


class DeliveryVerifier(Protocol):
    """Asks destinations about objects that they have answered with success."""

    def verify(
        self, destination: str, sent: Sequence[SentObject], *, transaction_uid: str
    ) -> Mapping[str, Evidence]:
        """What the destination says now: SOP Instance UID, as sent, to evidence. What it will say
        later is missing, and comes as a result with that Transaction UID.

        Raises what ``ReportSender.send`` raises.
        """


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """One image to assess: a DICOM file and the patient's sex."""

    path: Path
    sex: Sex


class Predictor(Protocol):
    """The loaded model."""

    def predict(
        self, requests: Sequence[PredictionRequest]
    ) -> list[Prediction | Reason | Exception]:
        """One answer per request, in order: a prediction, why the pixels cannot be assessed, or a
        ``NodeError``."""


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


class HeaderReader(Protocol):
    """Reads a DICOM file's header without its pixels."""

    def __call__(self, path: Path) -> Header:
        """Raises ``Permanent`` (UNREADABLE_OBJECT), and ``Transient`` (STORAGE_UNAVAILABLE) when
        the disk fails."""


__all__ = [
    "Backlog",
    "CentralArchive",
    "CentralNames",
    "Clock",
    "Commitments",
    "DeliveryVerifier",
    "Eligibility",
    "ExamPseudonyms",
    "Forwardable",
    "HeaderReader",
    "Holding",
    "JournalEntry",
    "KeptObject",
    "Ledger",
    "Outbox",
    "PredictionRequest",
    "Predictor",
    "Promises",
    "ReportRequest",
    "ReportSender",
    "Reporter",
    "Spool",
]
