"""report: what the business asks, from the centre."""

from __future__ import annotations

import csv
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from dicom_node.adapters.central.reports import (
    REPORTS,
    CentralReports,
    Scope,
    Section,
    load_prices,
)
from dicom_node.cli.options import config_option, json_option, readable_errors, settings_from
from dicom_node.cli.output import Failed, Screen, print_json
from dicom_node.settings import Settings

_DAY = click.DateTime(["%Y-%m-%d"])
_DEFAULT_DAYS = 30


@click.command()
@click.argument("name", type=click.Choice(REPORTS))
@click.option("--since", type=_DAY, help="First day (default: 30 days ago).")
@click.option("--until", type=_DAY, help="The day after the last (default: tomorrow).")
@click.option("--region", help="Of one region only.")
@click.option("--institution", help="Of one institution only.")
@click.option(
    "--csv", "folder", type=click.Path(path_type=Path, file_okay=False), help="Write CSV files."
)
@click.option(
    "--png", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture."
)
@config_option
@json_option
@click.pass_obj
def report(
    screen: Screen,
    name: str,
    since: datetime | None,
    until: datetime | None,
    region: str | None,
    institution: str | None,
    folder: Path | None,
    picture: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Usage, quality, latency or cost of all regions, from central.read_url.

    Days are those of São Paulo.
    """
    scope = _scope(since, until, region, institution)
    with readable_errors():
        sections = _reports(screen, settings_from(config)).read(name, scope)
        if folder is not None:
            _write_csv(folder, name, sections)
        if picture is not None:
            from dicom_node.cli.report_plots import draw

            draw(picture, name, sections)
    if as_json:
        print_json({section.name: _as_objects(section) for section in sections})
        return
    for section in sections:
        screen.table(f"report_{section.name}", section.columns, _rounded(section))


@click.command("prices")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--url", required=True, help="postgresql://OWNER@HOST/DATABASE")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The owner's password, as libpq reads it.",
)
@click.pass_obj
def central_prices(screen: Screen, file: Path, url: str, password_file: Path | None) -> None:
    """Replace the price list and the contracts by those of a TOML file."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
        prices, contracts = dict(found["prices"]), list(found.get("contracts", []))
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(screen.text("prices_unreadable", file=file, error=error)) from None
    with readable_errors():
        load_prices(url, prices=prices, contracts=contracts, password_file=password_file)
    screen.say("prices_loaded", prices=len(prices), contracts=len(contracts))


def _scope(
    since: datetime | None, until: datetime | None, region: str | None, institution: str | None
) -> Scope:
    today = datetime.now(UTC).date()
    return Scope(
        since=since.date() if since else today - timedelta(days=_DEFAULT_DAYS),
        until=until.date() if until else today + timedelta(days=1),
        region=region,
        institution=institution,
    )


def _reports(screen: Screen, settings: Settings) -> CentralReports:
    central = settings.central
    if central.read_url is None:
        raise Failed(screen.text("no_read_url"))
    return CentralReports(central.read_url, password_file=central.password_file)


def _write_csv(folder: Path, name: str, sections: tuple[Section, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        path = folder / f"{name}-{section.name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(section.columns)
            writer.writerows(section.rows)


def _as_objects(section: Section) -> list[dict[str, Any]]:
    return [
        {
            column: value.isoformat() if isinstance(value, date) else _plain(value)
            for column, value in zip(section.columns, row, strict=True)
        }
        for row in section.rows
    ]


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | str | None) else float(value)


def _rounded(section: Section) -> list[list[object]]:
    return [
        [
            f"{float(value):.2f}" if not isinstance(value, int | str | date | None) else value
            for value in row
        ]
        for row in section.rows
    ]
