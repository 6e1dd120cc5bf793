"""How the demonstration looks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from dicom_node.cli.options import files_from
from dicom_node.cli.output import Screen, print_json
from dicom_node.demo import (
    Answer,
    address,
    archive_in,
    draw_phantoms,
    exchange,
    narrative_of,
    new_folder,
    running_node,
)


def run_demo(
    screen: Screen, files: Sequence[Path], *, out: Path, count: int, seed: int, as_json: bool
) -> bool:
    """Run it and show every answer as it comes; whether every file was answered.

    With ``as_json`` only JSON lines go to standard output; progress goes to standard error.
    """
    folder = new_folder(out)
    progress = Console(stderr=True, highlight=False)
    if files:
        sources = files_from(screen, files)
    else:
        progress.print(screen.text("demo_draws", count=count))
        sources = draw_phantoms(folder, count=count, seed=seed)
    progress.print(screen.text("demo_starts"))
    answers: list[Answer] = []
    with archive_in(folder) as archive, running_node(folder, archive, screen.language) as settings:
        where = address(settings)
        progress.print(screen.text("demo_sends", count=len(sources), address=where))
        for answer in exchange(sources, settings, archive, folder):
            answers.append(answer)
            _show(screen, answer, as_json=as_json)
    reported = [answer for answer in answers if answer.ended]
    progress.print(
        screen.text("demo_done", reported=len(reported), total=len(sources), folder=folder.root),
        soft_wrap=True,
    )
    return len(reported) == len(sources)


def _show(screen: Screen, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(answer) | {"reports": [str(path) for path in answer.reports]})
        return
    report = _report(answer)
    if report:
        title = escape(answer.file.name)
        screen.console.print(Panel(Group(*report), title=title, title_align="left"))
    else:
        screen.console.print(answer.file.name, markup=False)
    for line in _lines(screen, answer):
        screen.console.print(line, markup=False, soft_wrap=True)


def _report(answer: Answer) -> list[Text]:
    """The text report under its headings."""
    shown = []
    for heading, sentences in groupby(narrative_of(answer.reports), key=lambda pair: pair[0]):
        shown.append(Text(heading, style="bold"))
        shown += [Text(f"  {sentence}") for _, sentence in sentences]
    return shown


def _lines(screen: Screen, answer: Answer) -> list[str]:
    if answer.error:
        return [screen.text("demo_refused", error=answer.error)]
    if answer.report_seconds is None:
        reason = answer.reason or "-"
        return [
            screen.text(
                "demo_no_report",
                outcome=answer.outcome,
                reason=reason,
                explanation=screen.explain(reason),
            )
        ]
    lines = [screen.text("demo_times", seconds=screen.number(answer.report_seconds, ".2f"))]
    if answer.picture:
        lines.append(screen.text("demo_picture", path=answer.picture))
    return lines + [screen.text("demo_report", path=path) for path in answer.reports]
