"""send: files to a peer, once or as a load that is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from dicom_node.adapters.scu.association import Peer
from dicom_node.adapters.scu.exam_sender import Load, Sent, send_load
from dicom_node.cli.options import PeerType, files_from, json_option
from dicom_node.cli.output import Screen, print_json

_RATE = re.compile(r"(?P<count>\d+(\.\d+)?)/(?P<unit>s|min|h)")
_UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600}
_SHOWN_FAILURES = 20
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class RateType(click.ParamType[float]):
    """``N/s``, ``N/min`` or ``N/h``; objects a second."""

    name = "N/s|N/min|N/h"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the text; anything else is a usage error."""
        if isinstance(value, float):
            return value
        found = _RATE.fullmatch(value)
        if found is None or not float(found["count"]):
            screen = (ctx.find_object(Screen) if ctx else None) or Screen("en")
            self.fail(screen.text("no_rate", value=value), param, ctx)
        return float(found["count"]) / _UNIT_SECONDS[found["unit"]]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--to", "peer", required=True, type=PeerType(), help="host:port/AET of the receiver.")
@click.option("--from", "calling", default="DICOM-NODE", show_default=True, help="Our AE title.")
@click.option(
    "--associations",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="How many at the same time.",
)
@click.option("--rate", type=RateType(), help="Send so many, as 1000/h (default: no limit).")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    help="Send everything so often; more than once: under new UIDs, as exams of their own.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    help="Send for so many seconds, everything again and again unless --repeat ends it.",
)
@json_option
@click.pass_obj
def send(
    screen: Screen,
    paths: tuple[Path, ...],
    peer: Peer,
    calling: str,
    associations: int,
    rate: float | None,
    repeat: int | None,
    duration: float | None,
    as_json: bool,
) -> None:
    """Send DICOM files by C-STORE, each in its own transfer syntax.

    With --rate, --repeat and --duration it is a load. It tells how long the receiver took to answer
    and what; what becomes of the exams only the receiver knows.
    """
    files = files_from(screen, paths)
    times = repeat if repeat or duration else 1
    load = Load(associations=associations, repeat=times, rate=rate, seconds=duration)
    begun = monotonic()
    results = _send(screen, files, peer, calling, load)
    summary = _summary(results, monotonic() - begun)
    if as_json:
        for sent in results:
            print_json(asdict(sent))
        if rate or repeat or duration:
            print_json({"summary": summary})
    else:
        _show(screen, results, summary, paced=rate is not None)
    if any(not _stored(sent) for sent in results):
        raise click.exceptions.Exit(1)


def _send(
    screen: Screen, files: Sequence[Path], peer: Peer, calling: str, load: Load
) -> list[Sent]:
    results: list[Sent] = []
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task(screen.text("sending"), total=_expected(len(files), load))
        for sent in send_load(files, peer, load, calling_ae_title=calling):
            results.append(sent)
            progress.advance(task)
    return results


def _expected(files: int, load: Load) -> float | None:
    """How many objects, as far as it is known before."""
    by_time = load.rate * load.seconds if load.rate and load.seconds else None
    by_count = files * load.repeat if load.repeat else None
    known = [count for count in (by_time, by_count) if count]
    return min(known) if known else None


def _stored(sent: Sent) -> bool:
    """Success or a warning (PS3.7 Annex C)."""
    return sent.status is not None and (sent.status == 0 or sent.status & 0xF000 == 0xB000)


def _result(sent: Sent) -> str:
    if sent.status is None:
        return "unanswered"
    if sent.status == 0:
        return "stored"
    return "warned" if _stored(sent) else "refused"


def _summary(results: Sequence[Sent], seconds: float) -> dict[str, Any]:
    """Counts and percentiles of the seconds between request and response."""
    statuses: dict[str, list[Sent]] = {}
    for sent in results:
        statuses.setdefault("-" if sent.status is None else f"0x{sent.status:04X}", []).append(sent)
    return {
        "total": len(results),
        "stored": sum(map(_stored, results)),
        "seconds": seconds,
        "late_seconds": max((sent.late_seconds for sent in results), default=0.0),
        "answers": [
            {"status": status, "result": _result(some[0]), "objects": len(some)}
            | _percentiles(some)
            for status, some in sorted(statuses.items())
        ],
    }


def _percentiles(some: Sequence[Sent]) -> dict[str, float | None]:
    """The smallest time that this share of the answers did not exceed."""
    took = sorted(sent.seconds for sent in some if sent.status is not None)
    return {
        name: took[ceil(share * len(took)) - 1] if took else None
        for name, share in _PERCENTILES.items()
    }


def _show(screen: Screen, results: Sequence[Sent], summary: dict[str, Any], *, paced: bool) -> None:
    failed = [sent for sent in results if not _stored(sent)]
    for sent in failed[:_SHOWN_FAILURES]:
        answer = "-" if sent.status is None else f"{sent.status:04X}"
        screen.say("send_failed", path=sent.path, status=answer, error=sent.error or "-")
    if len(failed) > _SHOWN_FAILURES:
        screen.say("send_more_failed", count=len(failed) - _SHOWN_FAILURES)
    rows = [
        (
            screen.text(f"send_{answer['result']}"),
            answer["status"],
            answer["objects"],
            *(_milliseconds(answer[name]) for name in _PERCENTILES),
        )
        for answer in summary["answers"]
    ]
    columns = ("result", "status", "objects", "p50_ms", "p95_ms", "p99_ms")
    screen.table("send_title", columns, rows)
    screen.say(
        "send_sum",
        stored=summary["stored"],
        total=summary["total"],
        seconds=screen.number(summary["seconds"], ".1f"),
        rate=screen.number(summary["total"] / summary["seconds"], ".1f"),
    )
    if paced:
        screen.say("send_late", seconds=screen.number(summary["late_seconds"], ".1f"))


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
