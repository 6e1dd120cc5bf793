"""predict and echo: files and peers, without a node's ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dicom_node.adapters.scu.association import Peer
from dicom_node.adapters.scu.echo import HINTS, Step, diagnose
from dicom_node.cli.options import (
    PeerType,
    config_option,
    files_from,
    json_option,
    readable_errors,
    settings_from,
)
from dicom_node.cli.output import Failed, Screen, months_in_words, print_json
from dicom_node.domain.errors import NodeError
from dicom_node.offline import FileResult, assess_files, picture_names
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--png", type=click.Path(path_type=Path, file_okay=False), help="Folder for annotated pictures."
)
@config_option
@json_option
@click.pass_obj
def predict(
    screen: Screen, paths: tuple[Path, ...], png: Path | None, config: Path | None, as_json: bool
) -> None:
    """Assess DICOM files or folders here and now: no node, nothing is stored or sent."""
    wiring = Wiring(settings_from(config))
    files = files_from(screen, paths)
    names = picture_names(files)
    failed = False
    with readable_errors():
        for assessed in assess_files(wiring, files):
            result = assessed
            picture = png / names[result.path] if png and result.assessment else None
            if picture:
                result = _drawn(wiring, result, picture, screen.language)
            failed = failed or result.error != ""
            if as_json:
                print_json(_as_json(result, picture))
            else:
                screen.console.print(_in_words(screen, result), markup=False, soft_wrap=True)
    if failed:
        raise click.exceptions.Exit(1)


def _drawn(wiring: Wiring, result: FileResult, target: Path, language: str) -> FileResult:
    """The result itself once its picture is saved; a failure when it cannot be drawn."""
    assert result.assessment is not None
    try:
        picture = wiring.picture(result.path, result.assessment, language)
    except NodeError as error:
        return FileResult(path=result.path, fault=error.fault, error=str(error))
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)
    return result


def _as_json(result: FileResult, picture: Path | None) -> dict[str, Any]:
    found = result.assessment
    line: dict[str, Any] = {
        "path": str(result.path),
        "outcome": result.outcome or "failed",
        "reason": result.reason or result.fault,
    }
    if result.error:
        line["error"] = result.error
    if found is not None:
        line |= {
            "bone_age_months": found.prediction.bone_age_months,
            "sd_months": found.prediction.sd_months,
            "chronological_age_months": found.chronological_age_months,
            "difference_months": found.difference_months,
            "population_sd_months": found.population_sd_months,
            "z_score": found.z_score,
            "determination": found.determination,
            "reference": found.reference_id,
            "sex": found.sex,
            "laterality": found.laterality,
            "notes": list(found.notes),
            "hand_box": asdict(found.prediction.hand_box),
            "model": asdict(found.prediction.model),
        }
    if picture and not result.error:
        line["picture"] = str(picture)
    return line


def _in_words(screen: Screen, result: FileResult) -> str:
    if result.error:
        return screen.text("predict_failed", path=result.path, error=result.error)
    found = result.assessment
    if found is None:
        assert result.reason is not None
        return screen.text(
            "predict_not_assessed",
            path=result.path,
            outcome=screen.text(f"outcome_{result.outcome}"),
            reason=result.reason,
            explanation=screen.explain(result.reason),
        )
    age = found.chronological_age_months
    line = screen.text(
        "predict_assessed",
        path=result.path,
        age=months_in_words(found.prediction.bone_age_months, screen),
        sd=screen.number(found.prediction.sd_months, ".1f"),
        chronological=months_in_words(age, screen) or screen.text("not_available"),
        z="-" if found.z_score is None else screen.number(found.z_score, "+.2f"),
        determination=screen.text(f"determination_{found.determination}"),
    )
    notes = [screen.text("note", explanation=screen.explain(note)) for note in found.notes]
    return "\n  ".join([line, *notes])


@click.command()
@click.argument("destination", required=False)
@click.option("--to", "peer", type=PeerType(), help="host:port/AET instead of a destination.")
@config_option
@json_option
@click.pass_obj
def echo(
    screen: Screen,
    destination: str | None,
    peer: Peer | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Ask a destination for C-ECHO and say in plain words what is wrong."""
    settings = settings_from(config)
    peers = {"--to": peer} if peer else _configured_peers(screen, settings, destination)
    failed = False
    for name, target in peers.items():
        steps = list(diagnose(target, calling_ae_title=settings.node.ae_title))
        failed = failed or not all(step.ok for step in steps)
        if as_json:
            print_json({"destination": name, "steps": [asdict(step) for step in steps]})
        else:
            _show_steps(screen, f"{name} {target}", steps)
    if failed:
        raise click.exceptions.Exit(1)


def _configured_peers(screen: Screen, settings: Settings, name: str | None) -> dict[str, Peer]:
    wiring = Wiring(settings)
    peers = {
        item.name: wiring.peer(item) for item in settings.destinations if name in (None, item.name)
    }
    if not peers:
        known = ", ".join(item.name for item in settings.destinations) or screen.text("none")
        raise Failed(screen.text("no_destination", known=known))
    return peers


def _show_steps(screen: Screen, title: str, steps: Sequence[Step]) -> None:
    screen.console.print(title, markup=False)
    for step in steps:
        mark = "✓" if step.ok else "✗"
        screen.console.print(f"  {mark} {step.name}: {step.detail}", markup=False, soft_wrap=True)
        hint = HINTS[step.hint][screen.language]
        if hint:
            screen.console.print(f"    → {hint}", markup=False, soft_wrap=True)
