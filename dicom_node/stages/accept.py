"""ACCEPT: from received bytes to custody. The only place that decides a C-STORE status."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Instance
from dicom_node.domain.receipt import Acceptance, Identity, StoreStatus
from dicom_node.ports import Clock, KeptObject, Ledger, Spool

IdentityReader = Callable[[Path], Identity]
"""Reads a file's first elements. Raises ``Permanent`` (UNREADABLE_OBJECT) or ``Transient``
(STORAGE_UNAVAILABLE)."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_UID_LENGTH = 64


class Accept:
    """Takes custody of one object: success is answered only when bytes and job are durable."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        read_identity: IdentityReader,
        max_object_bytes: int,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._read_identity = read_identity
        self._max_object_bytes = max_object_bytes

    def accept(
        self,
        partial: Path,
        *,
        command_sop_class_uid: str,
        command_sop_instance_uid: str,
        context_sop_class_uid: str,
        calling_ae_title: str,
        peer_address: str,
        institution_id: str | None,
        content_sha256: str | None = None,
    ) -> Acceptance:
        """Check, keep and record the DICOM file ``partial``, which lies in the spool's incoming
        folder.

        ``institution_id`` is None when the association was never admitted. ``content_sha256``: of
        its data set, where that was hashed on arrival. Without success
        ``partial`` may be left where it is; the caller removes it.
        """
        if institution_id is None:
            return Acceptance(status=StoreStatus.NOT_AUTHORISED)
        try:
            if partial.stat().st_size > self._max_object_bytes:
                return Acceptance(status=StoreStatus.OUT_OF_RESOURCES, fault=Fault.OBJECT_TOO_LARGE)
            identity = self._read_identity(partial)
            if not _agree(
                identity, command_sop_class_uid, command_sop_instance_uid, context_sop_class_uid
            ):
                return Acceptance(status=StoreStatus.MISMATCH)
            kept = self._spool.keep(partial, content_sha256=content_sha256)
            return self._record(kept, identity, calling_ae_title, peer_address, institution_id)
        except Transient as error:
            return Acceptance(status=StoreStatus.OUT_OF_RESOURCES, fault=error.fault)
        except Permanent as error:
            return Acceptance(status=StoreStatus.CANNOT_UNDERSTAND, fault=error.fault)

    def _record(
        self,
        kept: KeptObject,
        identity: Identity,
        calling_ae_title: str,
        peer_address: str,
        institution_id: str,
    ) -> Acceptance:
        exam_id, receipt = self._ledger.record_instance(
            Instance(
                sop_class_uid=identity.sop_class_uid,
                sop_instance_uid=identity.sop_instance_uid,
                transfer_syntax_uid=identity.transfer_syntax_uid,
                content_sha256=kept.content_sha256,
                size_bytes=kept.size_bytes,
                calling_ae_title=calling_ae_title,
                peer_address=peer_address,
                institution_id=institution_id,
                received_at=self._clock.now(),
            )
        )
        return Acceptance(
            status=StoreStatus.SUCCESS,
            exam_id=exam_id,
            receipt=receipt,
            content_sha256=kept.content_sha256,
        )


def is_valid_uid(uid: str) -> bool:
    """Digits and dots, at most 64 characters (PS3.5 9.1). Leading zeros pass: old devices send
    them."""
    return len(uid) <= _MAX_UID_LENGTH and _UID.fullmatch(uid) is not None


def _agree(
    identity: Identity, command_class: str, command_instance: str, context_class: str
) -> bool:
    uids = (identity.sop_class_uid, identity.sop_instance_uid)
    return (
        uids == (command_class, command_instance)
        and command_class == context_class
        and all(is_valid_uid(uid) for uid in uids)
    )
