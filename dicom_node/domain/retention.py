"""How long images and reports are kept after their exam has ended, and what stays longer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_node.domain.exam import Outcome

FOR_EVER = 0
"""Days that never end."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Days from the end of an exam to the purge of its image and of its reports."""

    images_days: int
    reports_days: int


@dataclass(frozen=True, kw_only=True)
class RetentionRules:
    """``institutions``: those that have their own days. ``archived``: what must lie in the archive
    before it is purged here; None without an archive."""

    default: Retention
    institutions: Mapping[str, Retention]
    archived: ArchiveRule | None = None


@dataclass(frozen=True, kw_only=True)
class ArchiveRule:
    """Every report is archived, and the images of exams with one of these outcomes."""

    images_of: frozenset[Outcome]


@dataclass(frozen=True, kw_only=True)
class Cutoffs:
    """What ended before its institution's time, else before the default one, may go. None: it stays
    for ever."""

    default: datetime | None
    institutions: Mapping[str, datetime | None]


def image_cutoffs(rules: RetentionRules, now: datetime, promised: Collection[str]) -> Cutoffs:
    """``promised``: institutions to which the node commits (PS3.4 Annex J); their images stay."""
    days = {name: own.images_days for name, own in rules.institutions.items()}
    return _cutoffs(rules.default.images_days, days | dict.fromkeys(promised, FOR_EVER), now)


def report_cutoffs(rules: RetentionRules, now: datetime) -> Cutoffs:
    """For reports."""
    days = {name: own.reports_days for name, own in rules.institutions.items()}
    return _cutoffs(rules.default.reports_days, days, now)


def _cutoffs(default: int, days: Mapping[str, int], now: datetime) -> Cutoffs:
    return Cutoffs(
        default=_before(now, default),
        institutions={name: _before(now, own) for name, own in days.items()},
    )


def _before(now: datetime, days: int) -> datetime | None:
    return None if days == FOR_EVER else now - timedelta(days=days)
