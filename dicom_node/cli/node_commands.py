"""demo and doctor: a whole node for a while, and a node that is looked at."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from dicom_node.adapters.ledger.migrate import (
    check_integrity,
    current_revision,
    head_revision,
)
from dicom_node.adapters.scu.echo import HINTS, diagnose
from dicom_node.cli.demo_output import run_demo
from dicom_node.cli.options import config_option, json_option, readable_errors, settings_from
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.doctor import (
    CheckStatus,
    Finding,
    check_certificates,
    check_clock,
    check_config,
    check_data_folder,
    check_decoders,
    check_destination,
    check_device,
    check_disk,
    check_ledger,
    check_model,
    check_patient_key,
    check_port,
    check_reference_table,
    check_reports,
    run_checks,
)
from dicom_node.node import is_running
from dicom_node.scp.contexts import IMAGE_TRANSFER_SYNTAXES
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.wiring import Wiring

_MARKS = {CheckStatus.OK: "✓", CheckStatus.WARNING: "!", CheckStatus.FAILED: "✗"}


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder that keeps everything, in a new one for each run.",
)
@click.option(
    "--count",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="How many synthetic hands are drawn.",
)
@click.option("--seed", default=3, show_default=True, help="Which synthetic hands are drawn.")
@json_option
@click.pass_obj
def demo(
    screen: Screen, files: tuple[Path, ...], out: Path, count: int, seed: int, as_json: bool
) -> None:
    """The whole path on this machine: node, PACS, radiographs in, reports back.

    Without FILES the radiographs are synthetic. For research use only; not for diagnosis.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the node that it runs ends with it
    with readable_errors():
        complete = run_demo(screen, files, out=out, count=count, seed=seed, as_json=as_json)
    if not complete:
        raise click.exceptions.Exit(1)


@click.command()
@config_option
@json_option
@click.pass_obj
def doctor(screen: Screen, config: Path | None, as_json: bool) -> None:
    """Check disk, fsync, clock, ledger, model and destinations, and say what to do."""
    settings = settings_from(config)
    results = run_checks(_checks(screen, config, settings))
    if as_json:
        print_json([asdict(result) for result in results])
    else:
        screen.table(
            "doctor_title",
            ("result", "check", "found", "todo"),
            [(_MARKS[r.status], r.name, r.found, r.action) for r in results],
        )
    failed = [result.name for result in results if result.status is CheckStatus.FAILED]
    if failed:
        raise Failed(", ".join(failed))


def _checks(
    screen: Screen, config: Path | None, settings: Settings
) -> dict[str, Callable[[], Finding]]:
    wiring = Wiring(settings)
    node, ledger = settings.node, wiring.folders.ledger
    folder = _existing(node.data_dir)

    def ours() -> bool:
        return is_running(wiring.folders)

    checks: dict[str, Callable[[], Finding]] = {
        "configuration": lambda: check_config(config),
        "data folder": lambda: check_data_folder(folder),
        "disk": lambda: check_disk(folder, settings.receive.high_water_percent),
        "clock": check_clock,
        "ledger": lambda: check_ledger(
            lambda: current_revision(ledger),
            head_revision(),
            intact=lambda: check_integrity(ledger),
        ),
        "model": lambda: check_model(wiring.predictor.verify),
        "device": lambda: check_device(settings.inference.device, lambda: wiring.predictor.device),
        "reference table": lambda: check_reference_table(lambda: wiring.reference),
        "reports": lambda: check_reports(_differing_reports),
        "patient key": lambda: check_patient_key(wiring.pseudonyms.verify),
        "decoders": lambda: check_decoders(IMAGE_TRANSFER_SYNTAXES),
        "port": lambda: check_port(node.bind, node.port, ours=ours),
        "metrics port": lambda: check_port(node.bind, node.metrics_port, ours=ours),
    }
    if wiring.certificates is not None:
        checks["certificates"] = functools.partial(check_certificates, wiring.certificates)
    for destination in settings.destinations:
        echo = functools.partial(_trouble, screen, wiring, destination)
        checks[f"destination {destination.name}"] = functools.partial(check_destination, echo)
    return checks


def _existing(folder: Path) -> Path:
    """The folder itself, or where `serve` will make it: the nearest one above that exists."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def _trouble(screen: Screen, wiring: Wiring, destination: DestinationSettings) -> str | None:
    """What keeps a destination from answering, in words; None when it answers."""
    peer = wiring.peer(destination)
    for step in diagnose(peer, calling_ae_title=wiring.settings.node.ae_title):
        if not step.ok:
            return f"{step.name}: {step.detail}. {HINTS[step.hint][screen.language]}"
    return None


def _differing_reports() -> tuple[int, list[str]]:
    from sr_templates.judge import differing_documents

    return differing_documents()
