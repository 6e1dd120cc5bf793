"""TLS for DICOM in both directions: the BCP 195 profile (PS3.15 B.12), both sides with
certificates, renewed without a restart."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import Fault, Permanent
from dicom_node.logs import log

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""For TLS 1.2 (RFC 9325 4.2); those of TLS 1.3 are all allowed."""


class Certificates:
    """A node's certificate and key, and the authority that signs those of its peers: PEM files.

    They are read again when one of them has changed. What cannot be used then is said once in the
    log, and what was read before goes on.
    """

    def __init__(self, *, certificate: Path, key: Path, ca: Path) -> None:
        self._certificate, self._key, self._ca = certificate, key, ca
        self._contexts: dict[ssl.Purpose, tuple[object, ssl.SSLContext]] = {}
        self._unusable: dict[ssl.Purpose, object] = {}
        self._lock = threading.Lock()

    def server(self) -> ssl.SSLContext:
        """For connections from senders, who must show a certificate of the authority. Raises
        ``Permanent`` (CERTIFICATE_INVALID) when the files have never been usable."""
        return self._current(ssl.Purpose.CLIENT_AUTH)

    def client(self) -> ssl.SSLContext:
        """For connections to destinations, whose certificates must name their host. Raises as
        :meth:`server`."""
        return self._current(ssl.Purpose.SERVER_AUTH)

    def valid_until(self) -> datetime:
        """When this node's certificate ends, aware UTC. Raises as :meth:`server`, also when the
        authority did not sign the certificate or it is expired."""
        server = self.server()
        client = self._load(ssl.Purpose.SERVER_AUTH)
        client.check_hostname = False
        try:
            certificate = _own_certificate(server, client)
        except ssl.SSLError as error:
            raise Permanent(
                Fault.CERTIFICATE_INVALID,
                f"the certificate does not hold ({getattr(error, 'verify_message', error.reason)}):"
                " have it signed by the authority in ca",
            ) from None
        seconds = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        return datetime.fromtimestamp(seconds, UTC)

    def _current(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        with self._lock:
            known, version = self._contexts.get(purpose), self._version()
            if known is not None and version in (known[0], self._unusable.get(purpose)):
                return known[1]
            try:
                context = self._load(purpose)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                if known is None:
                    raise Permanent(
                        Fault.CERTIFICATE_INVALID,
                        f"the files of [tls] cannot be used ({_reason(error)}): check certificate, "
                        "key and ca",
                    ) from None
                log("certificates_not_renewed", error=error)
                self._unusable[purpose] = version
                return known[1]
            self._contexts[purpose] = (version, context)
            return context

    def _version(self) -> tuple[object, ...]:
        """What changes when a file does, or is missing."""
        return tuple(map(_version_of, (self._certificate, self._key, self._ca)))

    def _load(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=self._ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers(_CIPHERS)
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        return context


def _version_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_size


def _own_certificate(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """The server's certificate as the client sees it, after a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server)
    for side in (other, one, other, one, other):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return dict(other.getpeercert() or {})


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


ContextSource = Callable[[], ssl.SSLContext]


def names_of(connection: ssl.SSLSocket) -> frozenset[str]:
    """Common name and DNS names of the peer's certificate, which was verified."""
    certificate: dict[str, Any] = dict(connection.getpeercert() or {})
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    pairs = [*subject, *certificate.get("subjectAltName", ())]
    return frozenset(value for kind, value in pairs if kind in {"commonName", "DNS"})
