"""`dicom-node doctor`: what is wrong with this node's surroundings, and what to do about it.

Each check returns a :class:`Finding`. What lives in adapters comes as a callable from the wiring.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from dicom_node.domain.assessment import ModelIdentity, ReferenceTable
from dicom_node.domain.errors import NodeError
from dicom_node.durable import sync_folder
from dicom_node.settings import SettingsError, load_settings
from dicom_node.tls import Certificates

_FSYNC_TRIES = 3
_SLOW_FSYNC_SECONDS = 0.1
_DISK_MARGIN_PERCENT = 10
_PLAUSIBLE_YEARS = range(2025, 2100)
_CLOCK_DRIFT_SECONDS = 0.05
_CERTIFICATE_DAYS = 30


class CheckStatus(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """The node works; a person should look."""
    FAILED = "failed"
    """The node cannot keep its promise."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found and, unless all is well, what to do."""

    status: CheckStatus
    found: str
    action: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A finding with the name of its check."""

    name: str
    status: CheckStatus
    found: str
    action: str


def run_checks(checks: Mapping[str, Callable[[], Finding]]) -> list[CheckResult]:
    """Run every check, in order; one that raises has failed."""
    return [_run(name, check) for name, check in checks.items()]


def check_config(path: Path | None) -> Finding:
    """The configuration can be read and agrees with itself."""
    try:
        load_settings(path)
    except SettingsError as error:
        return _failed(str(error), "correct the configuration: docs/configuration.md")
    return _ok(f"{path} is valid" if path else "no file: the defaults and the environment")


def check_data_folder(data_dir: Path) -> Finding:
    """Files can be made durable below the data folder, and how long that takes."""
    try:
        seconds = min(_fsync_seconds(data_dir) for _ in range(_FSYNC_TRIES))
    except OSError as error:
        return _failed(
            f"{data_dir} cannot be written: {error.strerror}",
            "create the folder, give it to the node's user, check that it is mounted for writing",
        )
    found = f"{data_dir}: write and fsync took {seconds * 1000:.1f} ms"
    if seconds > _SLOW_FSYNC_SECONDS:
        return _warning(found, "every C-STORE waits for this: move the data folder to faster disk")
    return _ok(found)


def check_disk(data_dir: Path, high_water_percent: int) -> Finding:
    """Space is left below the mark at which associations are rejected."""
    usage = shutil.disk_usage(data_dir)
    percent = 100 * usage.used / (usage.used + usage.free)
    found = f"{percent:.0f} % used, {usage.free / 1e9:.1f} GB free, limit {high_water_percent} %"
    action = "make room or enlarge the disk: at the limit the node rejects associations"
    if percent >= high_water_percent:
        return _failed(found, action)
    if percent >= high_water_percent - _DISK_MARGIN_PERCENT:
        return _warning(found, action)
    return _ok(found)


def check_clock(
    *,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    watch_seconds: float = 0.2,
) -> Finding:
    """The wall clock shows a plausible UTC time and runs as fast as the monotonic clock."""
    begun_wall, begun = wall(), monotonic()
    while monotonic() - begun < watch_seconds:
        time.sleep(watch_seconds / 20)
    drift_seconds = (wall() - begun_wall) - (monotonic() - begun)
    now = datetime.fromtimestamp(wall(), UTC)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    action = "synchronise the clock (NTP): report times and retries depend on it"
    if now.year not in _PLAUSIBLE_YEARS:
        return _failed(found, action)
    if abs(drift_seconds) > _CLOCK_DRIFT_SECONDS:
        return _warning(f"{found}, moved by {drift_seconds:+.3f} s during the check", action)
    return _ok(found)


def check_ledger(
    revision: Callable[[], str | None], head: str, *, intact: Callable[[], None] = lambda: None
) -> Finding:
    """The ledger is whole, opens and has this version's schema. ``revision``: its schema, None when
    new. ``intact`` raises when it is damaged."""
    intact()
    found = revision()
    if found == head:
        return _ok(f"schema {found}")
    if found is None:
        return _ok("no ledger yet: `dicom-node serve` creates it")
    return _failed(
        f"schema {found}, this version needs {head}",
        "start `dicom-node serve` once to migrate; never run an older version on a newer ledger",
    )


def check_model(verify: Callable[[], ModelIdentity]) -> Finding:
    """The model's files have the hashes of their manifest. ``verify`` raises when not."""
    model = verify()
    return _ok(f"{model.name} {model.version}, SHA-256 {model.sha256[:12]}…")


def check_device(wanted: str, runs_on: Callable[[], str]) -> Finding:
    """The network runs where ``inference.device`` wants it. ``runs_on`` starts it."""
    device = runs_on()
    if wanted in {"auto", device}:
        return _ok(f"the network runs on {device}")
    return _warning(
        f"inference.device = {wanted}, but the network runs on {device}: no GPU answers",
        "check the driver (nvidia-smi) and that PyTorch is a CUDA build; until then exams run on "
        "the CPU",
    )


def check_reference_table(load: Callable[[], ReferenceTable]) -> Finding:
    """The configured reference table is there. ``load`` raises when not."""
    return _ok(load().title)


def check_reports(compare: Callable[[], tuple[int, list[str]]]) -> Finding:
    """The Structured Reports that this installation writes are those that highdicom builds.
    ``compare``: how many documents were compared, and which differ."""
    compared, differing = compare()
    if differing:
        return _failed(
            f"not what highdicom builds: {', '.join(differing)}",
            "reinstall the node with its locked dependencies; until then do not report",
        )
    return _ok(f"{compared} documents are what highdicom builds, byte for byte")


def check_patient_key(verify: Callable[[], None]) -> Finding:
    """The key that finds earlier exams of a patient can be used. ``verify`` raises when not."""
    try:
        verify()
    except NodeError as error:
        return _warning(str(error), "until then exams are reported without earlier ones")
    return _ok("earlier exams of a patient are found")


def check_certificates(certificates: Certificates) -> Finding:
    """Certificate, key and authority belong together, and how long the certificate is valid."""
    until = certificates.valid_until()
    days = (until - datetime.now(UTC)).days
    found = f"valid until {until:%Y-%m-%d}, {days} days"
    action = "have it renewed: the node reads the new files without a restart"
    if days < 0:
        return _failed(found, action)
    return _warning(found, action) if days < _CERTIFICATE_DAYS else _ok(found)


def check_destination(echo: Callable[[], str | None]) -> Finding:
    """A destination answers a C-ECHO. ``echo``: None when it does, otherwise what went wrong."""
    trouble = echo()
    if trouble is None:
        return _ok("answers C-ECHO")
    return _failed(trouble, "run `dicom-node echo`; reports wait in the node until it answers")


def check_port(bind: str, port: int, *, ours: Callable[[], bool]) -> Finding:
    """The port can be listened on, or this node has it. ``ours``: whether it is this node."""
    try:
        _listen_once(bind, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and ours():
            return _ok(f"{bind}:{port} is this node's, which runs")
        return _failed(
            f"{bind}:{port}: {error.strerror}",
            "end the other program, correct bind, or choose another port (above 1023)",
        )
    return _ok(f"{bind}:{port} is free")


def check_decoders(transfer_syntax_uids: Sequence[str]) -> Finding:
    """Pixels of every transfer syntax that the node accepts can be decoded (PS3.5 A.4)."""
    missing = [uid for uid in transfer_syntax_uids if not _can_decode(uid)]
    if missing:
        return _failed(
            f"no decoder for {', '.join(missing)}", "reinstall the node with its dependencies"
        )
    return _ok(f"{len(transfer_syntax_uids)} transfer syntaxes")


def _run(name: str, check: Callable[[], Finding]) -> CheckResult:
    try:
        finding = check()
    except NodeError as error:
        finding = _failed(str(error), f"docs/reasons.md explains `{error.fault}`")
    except Exception as error:  # noqa: BLE001 - the other checks still run; foreign texts may quote
        finding = _failed(
            f"the check ended with {type(error).__name__}", "report this with the node's version"
        )
    return CheckResult(name=name, status=finding.status, found=finding.found, action=finding.action)


def _fsync_seconds(folder: Path) -> float:
    """Seconds to write a small file and make it and its folder durable."""
    begun = time.monotonic()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
        probe.write(b"\0" * 4096)
        probe.flush()
        os.fsync(probe.fileno())
        sync_folder(folder)
        return time.monotonic() - begun


def _listen_once(bind: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((bind, port))
        probe.listen()


def _can_decode(transfer_syntax_uid: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return get_decoder(transfer_syntax_uid).is_available
    except NotImplementedError:
        return False


def _ok(found: str) -> Finding:
    return Finding(status=CheckStatus.OK, found=found)


def _warning(found: str, action: str) -> Finding:
    return Finding(status=CheckStatus.WARNING, found=found, action=action)


def _failed(found: str, action: str) -> Finding:
    return Finding(status=CheckStatus.FAILED, found=found, action=action)
