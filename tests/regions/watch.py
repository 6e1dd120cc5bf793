"""What goes on in every region, once a second: samples of the places themselves, and the live
table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dicom_node.adapters.central.reports import CentralReports, Scope
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlOutbox
from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import Outcome
from dicom_node.domain.job import JobState
from tests.peers.node import MOVING
from tests.regions.traffic import Traffic
from tests.regions.world import READER, Site, World

_EVERY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One region at a time: exams, but for ``waiting`` and ``parked``, which are jobs."""

    sent: int = 0
    acknowledged: int = 0
    assessed: int = 0
    refused: int = 0
    ignored: int = 0
    delivered: int = 0
    """In the PACS, as the PACS says."""
    waiting: int = 0
    parked: int = 0
    forward: int = 0
    """Whose facts the centre has still to learn."""
    centre: int = 0
    """At the centre, as the replica says."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All regions at a time, in seconds since the watch began."""

    seconds: float
    regions: dict[str, Sample]


class Watch:
    """Looks at the map while it runs. ``phase``: what is going on, for people."""

    def __init__(self, world: World, traffic: Traffic, console: Console) -> None:
        self._world = world
        self._traffic = traffic
        self._console = console
        self._ledgers = {name: site.node.ledger() for name, site in world.sites.items()}
        self._outboxes = {name: outbox_of(site) for name, site in world.sites.items()}
        self._reports = CentralReports(world.replica.url(READER))
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._at_centre: dict[str, int] = {}
        self.phase = ""
        self.moments: list[Moment] = []

    @property
    def seconds(self) -> float:
        """Since the watch began."""
        return time.monotonic() - self._began

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look once a second for the time of the block, and once more at its end; show it where
        there is a terminal."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            thread = threading.Thread(target=self._work, args=(live,), name="watch")
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()
        self.moments.append(self.look())
        for name in self._world.sites:
            self._ledgers[name].close()
            self._outboxes[name].close()

    def enter(self, phase: str) -> None:
        """Say what happens from now on, and how all was until now."""
        self.phase = phase
        self._console.print(f"{self.seconds:5.0f} s  {phase}")
        if not self._console.is_terminal and self.moments:
            totals = asdict(total(list(self.moments[-1].regions.values())))
            words = {name: heading.replace("\n", " ") for name, heading in _HEADINGS.items()}
            said = ", ".join(f"{words[name]} {n}" for name, n in totals.items())
            self._console.print(f"         {said}", soft_wrap=True)

    def _work(self, live: Live) -> None:
        while not self._stop.is_set():
            with suppress(NodeError):  # a ledger that is being opened: look again
                self.moments.append(self.look())
            if self.moments and self._console.is_terminal:
                live.update(self._table(self.moments[-1]), refresh=True)
            self._stop.wait(_EVERY_SECONDS)

    def look(self) -> Moment:
        """All places, now."""
        seconds, at_centre = self.seconds, self._counts_at_centre()
        return Moment(
            seconds=seconds,
            regions={
                name: self._sample(site, at_centre.get(name, 0))
                for name, site in self._world.sites.items()
            },
        )

    def _counts_at_centre(self) -> dict[str, int]:
        """Exams by region, from the replica: it answers while the primary is away."""
        today = datetime.now(UTC).date()
        scope = Scope(since=today - timedelta(days=2), until=today + timedelta(days=2))
        with suppress(NodeError):
            [usage] = self._reports.read("usage", scope)
            region, exams = usage.columns.index("region"), usage.columns.index("exams")
            self._at_centre = {}
            for row in usage.rows:
                self._at_centre[row[region]] = self._at_centre.get(row[region], 0) + row[exams]
        return self._at_centre

    def _sample(self, site: Site, at_centre: int) -> Sample:
        name = site.region.name
        institutions = [item.institution_id for item in site.region.institutions]
        ledger = self._ledgers[name]
        outcomes, depths = ledger.outcome_counts(), ledger.queue_depths()

        def exams(outcome: Outcome) -> int:
            return sum(n for (found, _), n in outcomes.items() if found is outcome)

        return Sample(
            sent=sum(len(self._traffic.sent(name, item)) for item in institutions),
            acknowledged=sum(len(self._traffic.acknowledged(name, item)) for item in institutions),
            assessed=exams(Outcome.ASSESSED),
            refused=exams(Outcome.NOT_ASSESSED),
            ignored=exams(Outcome.IGNORED),
            delivered=site.pacs.studies(),
            waiting=sum(n for (_, state), n in depths.items() if state in MOVING),
            parked=sum(n for (_, state), n in depths.items() if state is JobState.PARKED),
            forward=self._outboxes[name].backlog().waiting,
            centre=at_centre,
        )

    def _table(self, moment: Moment) -> Table:
        title = f"{moment.seconds:.0f} s: {self.phase}"
        table = Table(title=title, title_justify="left", box=SIMPLE, padding=0, show_edge=False)
        table.add_column("")
        for column in fields(Sample):
            table.add_column(_HEADINGS[column.name], justify="right")
        table.add_column("state", min_width=11)
        for name, sample in moment.regions.items():
            cut = self._world.sites[name].cut
            state = f"[red]{cut} away[/]" if cut else "[green]ok[/]"
            table.add_row(name, *map(str, asdict(sample).values()), state)
        table.add_section()
        sums = total(list(moment.regions.values()))
        table.add_row("sum", *map(str, asdict(sums).values()), "", style="bold")
        return table


def total(samples: Sequence[Sample]) -> Sample:
    """The sum of all regions."""
    return Sample(
        **{item.name: sum(getattr(each, item.name) for each in samples) for item in fields(Sample)}
    )


def outbox_of(site: Site) -> SqlOutbox:
    """What the centre has still to learn of a node."""
    return SqlOutbox(site.node.settings.node.data_dir / "ledger.sqlite", SystemClock())


_HEADINGS = {
    "sent": "sent",
    "acknowledged": "acked",
    "assessed": "assessed",
    "refused": "refused",
    "ignored": "not\nours",
    "delivered": "in\nPACS",
    "waiting": "waiting",
    "parked": "parked",
    "forward": "to\ntell",
    "centre": "centre",
}
