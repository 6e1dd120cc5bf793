"""Whether the sums are equal everywhere: what each place says of an institution or of a region, and
every difference by name. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicom_node.domain.exam import Outcome

OBJECTS = {Outcome.ASSESSED: 2, Outcome.NOT_ASSESSED: 1, Outcome.IGNORED: 0}
"""Report objects that an exam of each outcome brings into the PACS: measurements and text, or the
text alone."""
_NAMED = 3
"""So many images that make a difference are named; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class InstitutionBooks:
    """What is said of one institution. Images by SOP Instance UID."""

    region: str
    institution_id: str
    sent: frozenset[str]
    """Of those that were to be sent."""
    acknowledged: frozenset[str]
    """Of those that were answered with 0x0000."""
    ledger: Counter[str]
    """Exams of each image."""
    outcomes: Counter[str]
    """Exams in the ledger by outcome."""
    centre: Counter[str]
    """Exams at the centre's primary by outcome."""
    report: Counter[str]
    """The same as `dicom-node report usage` reads it from the replica."""


@dataclass(frozen=True, kw_only=True)
class RegionBooks:
    """What is said of one region's reports and strangers. Report objects by SOP Instance UID."""

    region: str
    outcomes: Counter[str]
    delivered: Counter[str]
    """Objects that the ledger says the PACS has taken."""
    pacs: Counter[str]
    """Objects that the PACS has."""
    strangers_sent: int
    strangers_rejected: int
    unknown_exams: int
    """In the ledger, of no institution of this region."""


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Two numbers that must be one. ``difference``: what is on one side only; "" when nothing
    is."""

    where: str
    what: str
    left: int
    right: int
    difference: str

    @property
    def holds(self) -> bool:
        """Whether both sides say the same, item by item."""
        return not self.difference


def equalities(
    institutions: Sequence[InstitutionBooks], regions: Sequence[RegionBooks]
) -> list[Equality]:
    """Every equality that has to hold, also those that do."""
    return [
        *(equality for books in institutions for equality in _of_institution(books)),
        *(equality for books in regions for equality in _of_region(books)),
    ]


def _of_institution(books: InstitutionBooks) -> Iterator[Equality]:
    where = f"{books.region} {books.institution_id}"
    acknowledged = Counter(books.acknowledged)
    yield _equality(where, "sent = acknowledged", Counter(books.sent), acknowledged)
    yield _equality(where, "acknowledged = ledger", acknowledged, books.ledger)
    yield _equality(where, "ledger = centre", books.outcomes, books.centre)
    yield _equality(where, "centre = report of the replica", books.centre, books.report)


def _of_region(books: RegionBooks) -> Iterator[Equality]:
    due = sum(OBJECTS.get(Outcome(outcome), 0) * n for outcome, n in books.outcomes.items())
    yield _equality(
        books.region,
        "objects due = delivered",
        Counter(objects=due),
        Counter(objects=books.delivered.total()),
    )
    yield _equality(books.region, "delivered = in the PACS", books.delivered, books.pacs)
    yield _equality(
        books.region,
        "strangers sent = rejected",
        Counter(images=books.strangers_sent),
        Counter(images=books.strangers_rejected),
    )
    yield _equality(
        books.region, "strangers' exams = 0", Counter(exams=books.unknown_exams), Counter()
    )


def _equality(where: str, what: str, left: Counter[str], right: Counter[str]) -> Equality:
    said = [
        f"{side} only: {_named(more)}"
        for side, more in (("left", left - right), ("right", right - left))
        if more
    ]
    return Equality(
        where=where,
        what=what,
        left=left.total(),
        right=right.total(),
        difference="; ".join(said),
    )


def _named(more: Counter[str]) -> str:
    names = [f"{n} x {name}" for name, n in sorted(more.items())]
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} others" if rest > 0 else "")
