"""What happens to the engine reaches the node's metrics, its log and its documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.adapters import predictor as adapter
from dicom_node.logs import log
from inference.engines.engine import EngineEvent

METRICS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Told = list[tuple[str, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """(function, its argument), in order."""
    calls: Told = []

    def checked_log(event: str) -> None:
        log(event)  # a name that is not in the table is a ValueError
        calls.append(("log", event))

    monkeypatch.setattr(adapter, "log", checked_log)
    for name in ("engine_event", "network_runs_on"):
        monkeypatch.setattr(adapter, name, lambda value, name=name: calls.append((name, value)))
    return calls


@pytest.mark.parametrize(
    ("event", "others"),
    [
        (EngineEvent.DEVICE_LOST, [("log", "gpu_lost"), ("network_runs_on", "cpu")]),
        (EngineEvent.DEVICE_RETURNED, [("log", "gpu_returned"), ("network_runs_on", "cuda")]),
        (EngineEvent.OUT_OF_MEMORY, [("log", "gpu_memory_short")]),
        (EngineEvent.OUTPUT_NOT_FINITE, [("log", "gpu_output_wrong")]),
        (EngineEvent.CPU_BATCH, []),
        (EngineEvent.DUPLICATE, []),
    ],
)
def test_every_event_is_counted_and_what_a_person_should_see_is_logged(
    told: Told, event: EngineEvent, others: Told
) -> None:
    adapter._record(event)
    assert told == [("engine_event", event), *others]


def test_every_event_is_explained_among_the_metrics() -> None:
    text = METRICS_PAGE.read_text(encoding="utf-8")
    section = text.split("\n## Engine events\n", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(EngineEvent)
