"""The command line: parse, call, print. Nothing else."""

from dicom_node.cli.commands import main

__all__ = ["main"]
