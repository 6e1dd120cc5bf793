"""Pseudonyms for the centre: keyed by institution, with keys that can be renewed and never leave
the region."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from dicom_node.domain.errors import Fault, Permanent, Transient
from dicom_node.domain.exam import Exam
from dicom_node.durable import sync_folder
from dicom_node.ports import CentralNames

_KEY_BYTES = 32
_TIME = "%Y%m%dT%H%M%S%fZ"


class CentralPseudonyms:
    """HMAC-SHA-256 (RFC 2104) of what identifies an exam or a patient within the region.

    ``folder`` (``keys/central`` of the data folder) holds a folder for each institution, in it a
    file for each key, named by when it begins to hold (UTC); a key's id is made of its hash. An
    exam is named with the key that held when it was received, so that its name never changes; a
    lost key cannot be made again and cuts what it named off from the region.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, exam: Exam, patient_pseudonym: str | None) -> CentralNames:
        """Raises ``Transient`` (STORAGE_UNAVAILABLE) when the keys cannot be read or made and
        ``Permanent`` (STORAGE_UNAVAILABLE) when one is damaged."""
        instance = exam.instance
        key_id, key = self._key_at(instance.institution_id, instance.received_at)
        return CentralNames(
            exam_pseudonym=_name(key, "exam", instance.sop_instance_uid, instance.content_sha256),
            patient_pseudonym=patient_pseudonym and _name(key, "patient", patient_pseudonym),
            key_id=key_id,
        )

    def prepare(self, institution_ids: Iterable[str]) -> None:
        """Make the first key of each, before anything is named: a backup then has it. Raises as
        :meth:`of` does."""
        for institution_id in institution_ids:
            self._key_at(institution_id, datetime.now(UTC))

    def renew(self, institution_id: str) -> str:
        """Make a key that holds from now on; return its id. Patients get new names with it, so that
        exams before and after are no longer seen as one patient's at the centre."""
        return self._make(institution_id, datetime.now(UTC))

    def _key_at(self, institution_id: str, at: datetime) -> tuple[str, bytes]:
        try:
            files = self._files(institution_id)
            if not files:
                self._make(institution_id, datetime.fromtimestamp(0, UTC))
                files = self._files(institution_id)
            held = [file for file in files if file.stem <= at.strftime(_TIME)]
            return _read(held[-1] if held else files[0])
        except OSError as error:
            raise Transient(
                Fault.STORAGE_UNAVAILABLE,
                f"the keys in {self._folder} cannot be read or made: {error.strerror}",
            ) from None

    def _files(self, institution_id: str) -> list[Path]:
        return sorted((self._folder / institution_id).glob("*.key"))

    def _make(self, institution_id: str, since: datetime) -> str:
        """A new key, whole or not at all; of several processes that make the same one the first
        wins."""
        folder = self._folder / institution_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = folder / f"{secrets.token_hex(8)}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        made = folder / f"{since.strftime(_TIME)}.key"
        with suppress(FileExistsError):
            os.link(partial, made)
        partial.unlink()
        self._give_to_owner(folder, made)
        sync_folder(folder)
        return _read(made)[0]

    def _give_to_owner(self, *made: Path) -> None:
        """What root's commands make must be readable for the node."""
        if os.geteuid() == 0:
            data_folder = next(p for p in self._folder.parents if p.name != "keys").stat()
            for path in (*made, self._folder, self._folder.parent):
                os.chown(path, data_folder.st_uid, data_folder.st_gid)


@lru_cache(maxsize=1000)
def _read(file: Path) -> tuple[str, bytes]:
    key = file.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Permanent(
            Fault.STORAGE_UNAVAILABLE, f"the key {file} is damaged: restore it from a backup"
        )
    return hashlib.sha256(b"key id" + key).hexdigest()[:16], key


def _name(key: bytes, *parts: str) -> str:
    message = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()
