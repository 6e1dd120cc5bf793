"""`make regions`: the region map in one command; exit code 1 when a sum differs."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from tests.peers import haproxy, orthanc
from tests.regions.books import read_books, wait_until_drained
from tests.regions.plan import REGIONS, write_sendings
from tests.regions.result import Result, draw, show, write_json
from tests.regions.story import DRAIN_SECONDS, recovery, tell, traffic_seconds
from tests.regions.sums import equalities
from tests.regions.traffic import Traffic
from tests.regions.watch import Watch
from tests.regions.world import running_world

BUILD = Path(__file__).resolve().parents[2] / "build"
_PROGRAMS = (
    haproxy.PROGRAM,
    orthanc.PROGRAM,
    Path("/usr/bin/storescp"),
    Path("/usr/bin/storescu"),
    Path("/usr/bin/psql"),
)


def main() -> int:
    """Run it; the exit code."""
    options = _options()
    console = Console(stderr=options.json)
    missing = [str(program) for program in _PROGRAMS if not program.exists()]
    if missing:
        console.print(f"missing: {', '.join(missing)}. Run `bash .ci/peers regions` as root first.")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="regions-"))
    try:
        result = run(folder, console, exams=options.exams, outage=options.outage)
    except pytest.fail.Exception as failure:
        console.print(f"[red]the map did not get there: {failure}[/]; logs are kept in {folder}")
        return 1
    write_json(options.out / "regions.json", result)
    draw(options.out / "regions.png", result)
    show(console, result)
    console.print(f"see {options.out}/regions.json and regions.png", soft_wrap=True)
    if result.equal:
        shutil.rmtree(folder)
    else:
        console.print(f"ledgers and logs are kept in {folder}")
    if options.json:
        sys.stdout.write((options.out / "regions.json").read_text(encoding="utf-8"))
    return 0 if result.equal else 1


def run(folder: Path, console: Console, *, exams: int, outage: float) -> Result:
    """The whole map below ``folder``: ``exams`` images from each region, outages of so many
    seconds."""
    names = ", ".join(f"{region.name} ({region.pacs})" for region in REGIONS)
    console.print(f"drawing {exams} exams for each of {names}", soft_wrap=True)
    sendings = write_sendings(folder / "sent", exams=exams, seconds=traffic_seconds(outage))
    console.print("starting PostgreSQL, its replica, the PACSs, the nodes and HAProxy for SP")
    with running_world(folder) as world:
        traffic = Traffic(sendings, world.address)
        watch = Watch(world, traffic, console)
        with watch.running():
            outages = tell(world, traffic, watch, outage=outage)
            watch.enter("all is sent: what waits drains")
            wait_until_drained(world, seconds=DRAIN_SECONDS)
        institutions, regions, addresses = read_books(world, traffic)
        seconds = watch.seconds
    return Result(
        seconds=seconds,
        exams_per_region=exams,
        institutions=institutions,
        regions=regions,
        equalities=equalities(institutions, regions),
        outages=outages,
        recoveries=[recovery(outage, watch.moments) for outage in outages],
        moments=watch.moments,
        counts={region.name: traffic.counts(region.name) for region in REGIONS},
        addresses=addresses,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.regions", description=__doc__)
    parser.add_argument("--exams", type=int, default=30, help="images of each region (30)")
    parser.add_argument(
        "--outage", type=float, default=20.0, help="seconds that each outage lasts (20)"
    )
    parser.add_argument("--out", type=Path, default=BUILD, help="folder for regions.json and .png")
    parser.add_argument("--json", action="store_true", help="print regions.json too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
