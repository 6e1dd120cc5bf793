"""Reads what every place says at the end: senders, ledgers, PACSs, the centre, and the report of
its replica."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from dicom_node.domain.delivery import Verdict
from dicom_node.domain.exam import Outcome
from tests.integration.peers import wait_until
from tests.regions.sums import InstitutionBooks, RegionBooks
from tests.regions.traffic import Traffic
from tests.regions.watch import outbox_of
from tests.regions.world import Site, World

_OUTCOMES = (Outcome.ASSESSED, Outcome.NOT_ASSESSED, Outcome.IGNORED)

ByInstitution = Mapping[tuple[str, str], Counter[str]]
"""Region and institution to exams by outcome."""


@dataclass
class LedgerBooks:
    """One node's ledger: by institution, and what the PACS has taken."""

    images: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    delivered: Counter[str] = field(default_factory=Counter)
    addresses: set[str] = field(default_factory=set)
    """Where the senders called from, as the node saw it."""


def wait_until_drained(world: World, *, seconds: float) -> None:
    """Until no node has work, the centre has been told everything, and the replica has it too."""
    for site in world.sites.values():
        site.node.wait_until_idle(seconds)
        with closing(outbox_of(site)) as outbox:
            wait_until(lambda: outbox.backlog().waiting == 0, seconds=seconds)
    position = world.primary.sql("SELECT pg_current_wal_lsn()", role="postgres")
    caught_up = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
    wait_until(
        lambda: world.replica.sql(caught_up, role="postgres") == "t", seconds=seconds, poll=0.2
    )


def read_books(
    world: World, traffic: Traffic
) -> tuple[list[InstitutionBooks], list[RegionBooks], dict[str, set[str]]]:
    """All books, and the senders' addresses as each region's node saw them."""
    centre, report = _centre(world), _report(world)
    institutions, regions, addresses = [], [], {}
    for name, site in world.sites.items():
        ledger = read_ledger(site)
        institutions += list(_institutions(site, ledger, traffic, centre, report))
        regions.append(_region(site, ledger, traffic))
        addresses[name] = ledger.addresses
    return institutions, regions, addresses


def read_ledger(site: Site) -> LedgerBooks:
    """Every exam of a node."""
    books = LedgerBooks()
    with closing(site.node.ledger()) as ledger:
        for summary in ledger.exams(limit=10**6):
            details = ledger.exam_details(summary.exam_id)
            instance = details.exam.instance
            books.images[instance.institution_id][instance.sop_instance_uid] += 1
            books.outcomes[instance.institution_id][str(details.exam.outcome)] += 1
            books.addresses.add(instance.peer_address)
            books.delivered.update(
                answer.sent_sop_instance_uid
                for answer in details.deliveries
                if answer.verdict is Verdict.STORED
            )
    return books


def _institutions(
    site: Site,
    ledger: LedgerBooks,
    traffic: Traffic,
    centre: ByInstitution,
    report: ByInstitution,
) -> Iterator[InstitutionBooks]:
    region = site.region.name
    for institution in site.region.institutions:
        name = institution.institution_id
        yield InstitutionBooks(
            region=region,
            institution_id=name,
            sent=traffic.planned(region, name),
            acknowledged=traffic.acknowledged(region, name),
            ledger=ledger.images[name],
            outcomes=ledger.outcomes[name],
            centre=centre.get((region, name), Counter()),
            report=report.get((region, name), Counter()),
        )


def _region(site: Site, ledger: LedgerBooks, traffic: Traffic) -> RegionBooks:
    known = {item.institution_id for item in site.region.institutions}
    counts = traffic.counts(site.region.name)
    return RegionBooks(
        region=site.region.name,
        outcomes=sum(ledger.outcomes.values(), Counter[str]()),
        delivered=ledger.delivered,
        pacs=site.pacs.objects(),
        strangers_sent=counts["strangers_sent"],
        strangers_rejected=counts["strangers_rejected"],
        unknown_exams=sum(n.total() for name, n in ledger.images.items() if name not in known),
    )


def _centre(world: World) -> ByInstitution:
    """From the primary's table, as its owner."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    rows = world.primary.sql(
        "SELECT region, institution_id, outcome, count(*) FROM exams GROUP BY 1, 2, 3"
    )
    for row in rows.splitlines():
        region, institution, outcome, exams = row.split("|")
        found[region, institution][outcome] += int(exams)
    return found


def _report(world: World) -> ByInstitution:
    """`dicom-node report usage --json`, which reads the replica."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    node = next(iter(world.sites.values())).node
    for row in node.command("report", "usage", "--json")["exams_a_day"]:
        for outcome in _OUTCOMES:
            found[row["region"], row["institution"]][str(outcome)] += row[str(outcome)]
    return found
