"""Certificates for tests, made by OpenSSL: an authority and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """PEM files: a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates below ``folder``; its own is ``ca``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = Certificate(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
        self._request(self._own, name, "-x509", "-days", "10")

    @property
    def ca(self) -> Path:
        """Its certificate."""
        return self._own.certificate

    def sign(self, name: str, *, days: int = 10, file: str | None = None) -> Certificate:
        """A certificate for ``name`` and 127.0.0.1; ended already for negative ``days``."""
        stem = self._folder / (file or name)
        made = Certificate(certificate=stem.with_suffix(".crt"), key=stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        self._request(Certificate(certificate=request, key=made.key), name)
        extensions.write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\n")
        issuer = ("-CA", self.ca, "-CAkey", self._own.key, "-CAcreateserial")
        dates = ("-days", days, "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", made.certificate, *issuer, *dates)
        return made

    def _request(self, made: Certificate, name: str, *options: str) -> None:
        files = ("-keyout", made.key, "-out", made.certificate)
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", *files, *options)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
