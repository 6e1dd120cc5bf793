"""The audit trail as a person reads it: what the files hold, and what still waits."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from dicom_node.adapters.audit.message import BOM
from dicom_node.adapters.audit.trail import AuditFolders, waiting


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One message in a list. ``who``: the participants; ``what``: the objects' identifiers and
    details, or why it failed."""

    sequence: int
    at: datetime
    event: str
    action: str
    outcome: str
    who: tuple[str, ...]
    what: tuple[str, ...]


def read_entries(folders: AuditFolders, *, since: datetime | None = None) -> list[AuditEntry]:
    """All messages that this machine holds, the oldest first. Raises ``OSError``."""
    days = [path for path in sorted(folders.root.glob("????-??-??.log")) if _may_hold(path, since)]
    lines = [line for path in days for line in path.read_bytes().splitlines()]
    lines += [path.read_bytes() for path in waiting(folders)]
    entries = {
        (entry.sequence, entry.at): entry for entry in map(_entry, lines) if entry is not None
    }
    return [entry for entry in entries.values() if since is None or entry.at >= since]


def _may_hold(path: Path, since: datetime | None) -> bool:
    return since is None or path.stem >= since.date().isoformat()


def _entry(line: bytes) -> AuditEntry | None:
    """None for a line that is no whole message: half of one after a crash."""
    header, _, xml = line.partition(BOM)
    try:
        sequence = int(header.rpartition(b'sequenceId="')[2].partition(b'"')[0])
        root = ET.fromstring(xml)  # noqa: S314 this node wrote it
        event = root.find("EventIdentification")
        assert event is not None
        return AuditEntry(
            sequence=sequence,
            at=datetime.fromisoformat(event.get("EventDateTime", "")),
            event=", ".join(_meanings(event)),
            action=event.get("EventActionCode", ""),
            outcome=event.get("EventOutcomeIndicator", ""),
            who=tuple(map(_name, root.iter("ActiveParticipant"))),
            what=(*_things(root), *_descriptions(event)),
        )
    except (ValueError, ET.ParseError):
        return None


def _meanings(event: ET.Element) -> Iterator[str]:
    for code in (*event.findall("EventID"), *event.findall("EventTypeCode")):
        yield code.get("originalText", "")


def _name(participant: ET.Element) -> str:
    """An AE title where there is one, with its address."""
    titles = participant.get("AlternativeUserID", "").removeprefix("AETITLES=")
    name, address = titles or participant.get("UserID", ""), participant.get("NetworkAccessPointID")
    return f"{name} ({address})" if address and "@" not in name else name


def _things(root: ET.Element) -> Iterator[str]:
    for about in root.iter("ParticipantObjectIdentification"):
        kind = about.find("ParticipantObjectIDTypeCode")
        meaning = "" if kind is None else kind.get("originalText", "")
        yield f"{meaning} {about.get('ParticipantObjectID', '')}"
        count = sum(int(item.get("NumberOfInstances", "0")) for item in about.iter("SOPClass"))
        if count:
            yield f"instances: {count}"
        for detail in about.iter("ParticipantObjectDetail"):
            text = base64.b64decode(detail.get("value", "")).decode("utf-8", "replace")
            yield f"{detail.get('type', '')}: {text}"


def _descriptions(event: ET.Element) -> Iterator[str]:
    for description in event.iter("EventOutcomeDescription"):
        yield description.text or ""
