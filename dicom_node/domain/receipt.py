"""What the node answers a sender: C-STORE statuses (PS3.4 B.2.3, PS3.7 Annex C) and association
rejections (PS3.8 9.3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Receipt


class StoreStatus(IntEnum):
    """Every status (0000,0900) with which the node answers a C-STORE; never a warning."""

    SUCCESS = 0x0000
    """The object and its job are on stable storage."""
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    """Disk or database failed: the same object may be accepted later."""
    MISMATCH = 0xA900
    """Command, presentation context and data set do not name the same object."""
    CANNOT_UNDERSTAND = 0xC000
    """The data set cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a received DICOM file says it is, read from its first elements."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The answer to one C-STORE. ``exam_id``, ``receipt`` and ``content_sha256``, under which the
    object is kept, are None unless the status is SUCCESS; ``fault`` says what failed in the node or
    with the object."""

    status: StoreStatus
    exam_id: int | None = None
    receipt: Receipt | None = None
    content_sha256: str | None = None
    fault: Fault | None = None


class RejectResult(IntEnum):
    """Result of an A-ASSOCIATE-RJ."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(IntEnum):
    """Who rejects."""

    SERVICE_USER = 1
    PROVIDER_ACSE = 2
    PROVIDER_PRESENTATION = 3


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An A-ASSOCIATE-RJ. ``reason`` is the reason/diagnostic code, which depends on the source.

    The numbers stay plain because a peer may send any.
    """

    result: int
    source: int
    reason: int

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.result == RejectResult.TRANSIENT

    @property
    def reason_text(self) -> str:
        """The reason in the words of PS3.8 Table 9-21."""
        code = f"{self.result:02X}/{self.source:02X}/{self.reason:02X}"
        return f"{_REASONS.get((self.source, self.reason), 'reserved reason')} ({code})"


CALLING_AE_TITLE_NOT_RECOGNISED = Rejection(
    result=RejectResult.PERMANENT, source=RejectSource.SERVICE_USER, reason=3
)
CALLED_AE_TITLE_NOT_RECOGNISED = Rejection(
    result=RejectResult.PERMANENT, source=RejectSource.SERVICE_USER, reason=7
)
TEMPORARY_CONGESTION = Rejection(
    result=RejectResult.TRANSIENT, source=RejectSource.PROVIDER_PRESENTATION, reason=1
)
LOCAL_LIMIT_EXCEEDED = Rejection(
    result=RejectResult.TRANSIENT, source=RejectSource.PROVIDER_PRESENTATION, reason=2
)

_REASONS: Mapping[tuple[int, int], str] = {
    (RejectSource.SERVICE_USER, 1): "no reason given",
    (RejectSource.SERVICE_USER, 2): "application context name not supported",
    (RejectSource.SERVICE_USER, 3): "calling AE title not recognised",
    (RejectSource.SERVICE_USER, 7): "called AE title not recognised",
    (RejectSource.PROVIDER_ACSE, 1): "no reason given",
    (RejectSource.PROVIDER_ACSE, 2): "protocol version not supported",
    (RejectSource.PROVIDER_PRESENTATION, 1): "temporary congestion",
    (RejectSource.PROVIDER_PRESENTATION, 2): "local limit exceeded",
}
