"""Pseudonyms of patients: the same for all exams of a patient of an institution, and nothing that a
person could read. Their key never leaves the data folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import cached_property
from pathlib import Path

from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Header
from dicom_node.durable import sync_folder

_KEY_BYTES = 32


class PatientPseudonyms:
    """HMAC-SHA-256 (RFC 2104) of institution, issuer, Patient ID (0010,0020), birth date and sex.

    64 hexadecimal digits. Children who share a placeholder ID are not taken for one; a header that
    differs only loses a comparison. ``key_file`` is made, for its owner only, when it is missing.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def __call__(self, institution_id: str, header: Header) -> str | None:
        """The pseudonym of a header's patient, None without a Patient ID.

        Raises ``Transient`` (STORAGE_UNAVAILABLE) when the key cannot be read or made and
        ``Permanent`` (STORAGE_UNAVAILABLE) when it is damaged: with another key no earlier exam
        would be found.
        """
        if not header.patient_id:
            return None
        parts = (
            institution_id,
            header.issuer_of_patient_id,
            header.patient_id,
            header.birth_date.isoformat() if header.birth_date else "",
            header.sex,
        )
        message = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in parts)
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def verify(self) -> None:
        """Look at the key if there is one. Raises as a call does."""
        if self._key_file.exists():
            _ = self._key

    @cached_property
    def _key(self) -> bytes:
        try:
            key = self._read() or self._make()
        except OSError as error:
            raise Transient(
                Fault.STORAGE_UNAVAILABLE,
                f"the key {self._key_file} cannot be read or made: {error.strerror}",
            ) from None
        if len(key) != _KEY_BYTES:
            raise Permanent(
                Fault.STORAGE_UNAVAILABLE,
                f"the key {self._key_file} is damaged: restore it from a backup, or remove it and "
                "the exams up to now are no longer compared",
            )
        return key

    def _read(self) -> bytes | None:
        return self._key_file.read_bytes() if self._key_file.exists() else None

    def _make(self) -> bytes:
        """A new key, whole or not at all; of several processes the first one wins."""
        self._key_file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._key_file.with_name(f"{self._key_file.name}.{secrets.token_hex(8)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, self._key_file)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
        sync_folder(self._key_file.parent)
        return self._key_file.read_bytes()
