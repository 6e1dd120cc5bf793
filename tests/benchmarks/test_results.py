"""The one table of all benchmarks finds the ratios wherever they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import results


def test_ratios_are_found_in_every_shape() -> None:
    rows = [{"operation": "claim", "ms": 2.0, "ratio of times": 1.1}, {"operation": "x", "ms": 1}]
    assert list(results.ratios(rows)) == [("claim ratio of times", 1.1)]
    nested = {"exams": 5, "ratios": {"store": 0.9, "report": 1.2}}
    assert list(results.ratios(nested)) == [("ratios store", 0.9), ("ratios report", 1.2)]


def test_what_is_published_stands_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = [{"step": "decode", "ms": 20.0, "ratio": 1.5}]
    results.publish("some", "a title", rows, bars="ms")
    assert json.loads((tmp_path / "some.json").read_text()) == rows
    assert "| decode | 20 | 1.5 |" in (tmp_path / "some.md").read_text()
    assert (tmp_path / "some.png").stat().st_size > 1000
    assert "decode" in capsys.readouterr().out
    assert results.summary().row_count == 1
