"""What the supervisor tells the audit trail: start, stop, what changed between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dicom_node.adapters.audit import operator
from dicom_node.domain import audit
from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.errors import Permanent
from dicom_node.logs import log
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring

_NETWORK_KEYS = {
    "node": ("ae_title", "bind", "port", "metrics_port"),
    "institutions": ("calling_ae_titles", "networks", "certificate_names", "storage_commitment"),
    "destinations": ("ae_title", "host", "port", "tls", "storage_commitment", "verify_by_query"),
    "tls": ("port", "certificate", "key", "ca", "required"),
    "audit": ("syslog_host", "syslog_port"),
    "central": ("url", "read_url", "password_file"),
}
"""Settings that say with whom the node talks; the others say what it does."""


def audited_model(wiring: Wiring) -> ModelIdentity:
    """Verify the model's files. Raises ``Permanent`` when the model cannot be used; where its files
    are there, that is a Security Alert."""
    try:
        return wiring.predictor.verify()
    except Permanent:
        with suppress(Permanent):  # there is no such model: nothing has changed
            _tell_of_model(wiring, wiring.predictor.folder)
        raise


def _tell_of_model(wiring: Wiring, folder: Path) -> None:
    if folder.is_dir():
        uri = folder.resolve().as_uri()
        wiring.trail.record(audit.model_changed(uri, wiring.application, wiring.clock.now()))


@contextmanager
def audited_run(wiring: Wiring, config: str | None, model: ModelIdentity) -> Iterator[None]:
    """Record that the node starts, with which changes, and that it has stopped; what its processes
    left waiting is forwarded at the end. ``model``: the one that it starts with."""
    launcher, application = operator(), wiring.application
    if wiring.settings.audit.enabled:
        _compare(wiring, config, model)
    wiring.trail.record(audit.started(application, launcher, wiring.clock.now()))
    try:
        yield
    finally:
        wiring.trail.record(audit.stopped(application, launcher, wiring.clock.now()))
        if wiring.settings.audit.enabled:
            wiring.audit_forwarder.forward()


def _compare(wiring: Wiring, config: str | None, model: ModelIdentity) -> None:
    """Tell what is another than in the last run, and leave a note for the next one."""
    note = wiring.folders.audit.configuration
    now = fingerprints(wiring.settings, model)
    try:
        before = dict(json.loads(note.read_text()))
    except (OSError, ValueError):
        before = now if not note.exists() else {}
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        only_network = changed == ["network"]
        kind = audit.NETWORK_CONFIGURATION if only_network else audit.SOFTWARE_CONFIGURATION
        uri = Path(config).resolve().as_uri() if config else "urn:dicom-node:environment"
        what = f"changed since the last run: {', '.join(changed)}"
        message = audit.configuration_changed(
            kind, uri, what, wiring.application, wiring.clock.now()
        )
        wiring.trail.record(message)
    _leave(note, now)


def _leave(note: Path, fingerprints: dict[str, str]) -> None:
    partial = note.with_suffix(".part")
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_text(json.dumps(fingerprints))
        partial.replace(note)
    except OSError as error:
        log("audit_failed", error=error)


def fingerprints(settings: Settings, model: ModelIdentity) -> dict[str, str]:
    """SHA-256 of what the settings say about the network, of the others, and of the model."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    network = {
        section: [_taken(part, keys) for part in _parts(values[section])]
        for section, keys in _NETWORK_KEYS.items()
    }
    return {"network": _sha256(network), "software": _sha256(values), "model": model.sha256}


def _parts(section: Any) -> list[dict[str, Any]]:
    return section if isinstance(section, list) else [section]


def _taken(part: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Take these keys out."""
    return {key: part.pop(key) for key in keys}


def _sha256(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
