"""The command group and what every command shares."""

from __future__ import annotations

import click

from dicom_node import __version__
from dicom_node.cli.audit_commands import audit
from dicom_node.cli.backup_commands import backup, restore
from dicom_node.cli.central_commands import central
from dicom_node.cli.exam_commands import exam, job, status
from dicom_node.cli.file_commands import echo, predict
from dicom_node.cli.housekeeping_commands import archive, purge
from dicom_node.cli.node_commands import demo, doctor, process, serve
from dicom_node.cli.output import (
    LANGUAGES,
    Screen,
    accept_any_text,
    language_of_environment,
)
from dicom_node.cli.report_commands import central_prices, report
from dicom_node.cli.send_command import send

central.add_command(central_prices)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lang", type=click.Choice(LANGUAGES), help="Language of messages (default: LANG).")
@click.version_option(__version__, prog_name="dicom-node")
@click.pass_context
def main(context: click.Context, lang: str | None) -> None:
    """Bone-age DICOM node: hand radiographs in by C-STORE, Structured Reports back in the PACS.

    For research use only; not for diagnosis.
    """
    accept_any_text()
    context.obj = Screen(lang or language_of_environment())


for command in (
    *(demo, serve, process, predict, status, exam, job, send, echo, audit, doctor),
    *(backup, restore, archive, purge, central, report),
):
    main.add_command(command)
