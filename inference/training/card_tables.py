"""The rows of the model card's tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def figures(evaluation: Mapping[str, Any]) -> str:
    """Errors of all, by sex and by age band, each with its interval."""
    groups = {
        "all": evaluation,
        "girls": evaluation["by_sex"]["F"],
        "boys": evaluation["by_sex"]["M"],
        **{f"{band} months": row for band, row in evaluation["by_age_band_months"].items()},
    }
    return _lines(
        [
            name,
            str(row["images"]),
            _with_interval(row, "mae_months", ".1f"),
            _with_interval(row, "rmse_months", ".1f"),
            _with_interval(row, "bias_months", "+.1f"),
            f"{row['within_12_months']:.0%}",
            f"{row['within_24_months']:.0%}",
        ]
        for name, row in groups.items()
    )


def coverage(calibration: Mapping[str, Any]) -> str:
    """Coverage of each interval: uncalibrated, calibrated, cross-fitted."""
    columns = ("coverage_uncalibrated", "coverage", "coverage_cross_fitted")
    return _lines(
        [f"{float(level):.0%}", *(f"{calibration[column][level]:.1%}" for column in columns)]
        for level in calibration["coverage"]
    )


def gate(found: Mapping[str, Any]) -> str:
    """Shares of hands and of other images that the gate refuses."""
    unseen = dict(found["unseen_body_parts"] or {})
    unseen.pop("left_out_of_training", None)
    groups = {
        "hands as stored": found["hands_as_stored"],
        "hands in 16 lies": found["hands_in_16_lies"],
        "one hand, random views": found["random_views_hand"],
        "two hands, random views": found["random_views_two_hands"],
        **{f"no assessable hand: {name}": row for name, row in found["negatives"].items()},
        "no assessable hand: all": found["negatives_all"],
        **{f"{name}, by a gate that was never shown any": row for name, row in unseen.items()},
    }
    return _lines(
        [name, str(row["views"]), f"{row['refused']:.1%}"] for name, row in groups.items()
    )


def robustness(changes: Mapping[str, Any]) -> str:
    """What each change of a radiograph does."""
    return _lines(
        [
            name,
            f"{row['refused']:.1%}",
            f"{row['mean_absolute_shift_months']:.1f}",
            f"{row['mean_shift_months']:+.1f}",
            f"{row['mae_months']:.1f}",
        ]
        for name, row in changes.items()
    )


def _with_interval(row: Mapping[str, Any], name: str, form: str) -> str:
    low, high = row[f"{name}_interval_95"]
    return f"{row[name]:{form}} [{low:{form}}, {high:{form}}]"


def _lines(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
