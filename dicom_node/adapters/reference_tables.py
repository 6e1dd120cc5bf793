"""Tables of population standard deviations from ``config/reference/*.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import dicom_node
from dicom_node.domain.assessment import ReferenceTable
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.exam import Sex

_FOLDER = Path(dicom_node.__file__).parent.parent / "config" / "reference"
_KEYS = {Sex.FEMALE: "female", Sex.MALE: "male"}


def reference_table_ids() -> tuple[str, ...]:
    """Ids of all tables beside the package, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_reference_table(table_id: str) -> ReferenceTable:
    """Read one table.

    Raises ``Permanent`` (REPORT_INVALID) for an id without a file; the message lists the known
    ones.
    """
    known = reference_table_ids()
    if table_id not in known:
        raise Permanent(
            Fault.REPORT_INVALID,
            f"inference.reference = {table_id!r} is not a known reference table; "
            f"use one of: {', '.join(known) or f'none found in {_FOLDER}'}",
        )
    table = tomllib.loads((_FOLDER / f"{table_id}.toml").read_text(encoding="utf-8"))
    return ReferenceTable(
        table_id=table["id"],
        title=table["title"],
        citation=table["citation"],
        sd_months={sex: _rows(table[key]) for sex, key in _KEYS.items()},
    )


def _rows(rows: list[dict[str, float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(row["age_months"]), float(row["sd_months"])) for row in rows)
