"""What happens on the map, one thing after the other: traffic all the time, while the centre, a
PACS and a node are cut off in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.peers import wait_until
from tests.regions.traffic import Traffic
from tests.regions.watch import Moment, Watch
from tests.regions.world import World

PACS_AWAY, NODE_AWAY = "RJ", "PE"
"""The regions whose PACS, and whose node, are cut off."""
DRAIN_SECONDS = 300.0
_START_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True)
class Outage:
    """What was away in which regions, in seconds since the watch began."""

    what: str
    regions: tuple[str, ...]
    begin: float
    end: float


def traffic_seconds(outage: float) -> float:
    """For how long there is something to send: four calms around three outages, and the start of a
    node."""
    return 4 * outage / 2 + 3 * outage + _START_SECONDS


def tell(world: World, traffic: Traffic, watch: Watch, *, outage: float) -> list[Outage]:
    """Let it happen; every outage lasts so many seconds. Ends when all is sent."""
    calm = outage / 2
    outages: list[Outage] = []
    with traffic.running():
        watch.enter("every region sends")
        time.sleep(calm)
        with _cut(world, watch, outages, "centre", tuple(world.sites)):
            world.primary.stop("immediate")
            time.sleep(outage)
            world.primary.start()
        time.sleep(calm)
        pacs = world.sites[PACS_AWAY].pacs
        with _cut(world, watch, outages, "PACS", (PACS_AWAY,)):
            pacs.stop()
            time.sleep(outage)
            pacs.start()
        time.sleep(calm)
        with _cut(world, watch, outages, "node", (NODE_AWAY,)):
            world.sites[NODE_AWAY].kill_node()
            time.sleep(outage)
            world.sites[NODE_AWAY].start_node()
        wait_until(lambda: traffic.over, seconds=DRAIN_SECONDS, poll=0.2)
    return outages


@contextmanager
def _cut(
    world: World, watch: Watch, outages: list[Outage], what: str, regions: tuple[str, ...]
) -> Iterator[None]:
    where = "" if len(regions) > 1 else f" of {regions[0]}"
    watch.enter(f"the {what}{where} is away")
    begin = watch.seconds
    for region in regions:
        world.sites[region].cut = what
    yield
    for region in regions:
        world.sites[region].cut = ""
    outages.append(Outage(what=what, regions=regions, begin=begin, end=watch.seconds))
    watch.enter(f"the {what}{where} is back")


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What one outage held up: how many exams at most, and how long after it until these had come
    through. None: not within the watch."""

    what: str
    regions: tuple[str, ...]
    outage_seconds: float
    behind: int
    seconds: float | None


def recovery(outage: Outage, moments: list[Moment]) -> Recovery:
    """For the centre: exams that it did not know; for a PACS: that it did not have; for a node:
    images that were not acknowledged."""
    until = [moment for moment in moments if moment.seconds <= outage.end]
    during = [moment for moment in until if moment.seconds >= outage.begin] or until[-1:]
    due = {name: _due(outage.what, during[-1], name) for name in outage.regions}
    later = (
        moment.seconds - outage.end
        for moment in moments
        if moment.seconds > outage.end
        and all(_there(outage.what, moment, name) >= due[name] for name in outage.regions)
    )
    return Recovery(
        what=outage.what,
        regions=outage.regions,
        outage_seconds=outage.end - outage.begin,
        behind=max(
            sum(
                _due(outage.what, moment, name) - _there(outage.what, moment, name)
                for name in outage.regions
            )
            for moment in during
        ),
        seconds=next(later, None),
    )


def _due(what: str, moment: Moment, region: str) -> int:
    sample = moment.regions[region]
    if what == "node":
        return sample.sent
    if what == "PACS":
        return sample.assessed + sample.refused
    return sample.assessed + sample.refused + sample.ignored


def _there(what: str, moment: Moment, region: str) -> int:
    sample = moment.regions[region]
    if what == "node":
        return sample.acknowledged
    return sample.delivered if what == "PACS" else sample.centre
