"""What proves that others keep reports, and what the node promised to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dicom_node.domain.commitment import (
    CommitmentRequest,
    CommitmentResult,
    Evidence,
    Promise,
    Reference,
    SentObject,
)
from dicom_node.domain.job import Job


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

    def withdraw(self, job: Job, transaction_uid: str) -> None:
        """A request that the destination does not take is none."""

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

    def promise(self, request: CommitmentRequest, *, ae_title: str, institution_id: str) -> bool:
        """Remember a request, on stable storage; the same one again is answered again. False: its
        Transaction UID stands for other objects."""

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


class DeliveryVerifier(Protocol):
    """Asks destinations about objects that they have answered with success."""

    def verify(
        self, destination: str, sent: Sequence[SentObject], *, transaction_uid: str
    ) -> Mapping[str, Evidence]:
        """What the destination says now: SOP Instance UID, as sent, to evidence. What it will say
        later is missing, and comes as a result with that Transaction UID.

        Raises what ``ReportSender.send`` raises.
        """
