"""What building the objects of one exam costs in CPU time, and where it goes; the two documents
beside highdicom, which builds the same bytes.

`make bench` runs it and writes `build/benchmarks/reports.json`.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from pydicom import dcmread
from rich.console import Console
from rich.table import Table

import inference
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import HandBox, PriorResult, Saliency, assess
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.exam import Laterality, Sex
from dicom_node.ports import ReportRequest
from inference.display import display_pixels
from sr_templates import highdicom_reports as oracle
from sr_templates.content import AssessedContent
from sr_templates.source import read_source
from tests.builders.images import radiograph
from tests.builders.reports import assessment, request_for

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

RESULT = Path(inference.__file__).parent.parent / "build" / "benchmarks" / "reports.json"
ROUNDS = 20
SR = frozenset({ReportKind.MEASUREMENTS, ReportKind.NARRATIVE})
ROWS, COLUMNS = 2500, 2000


@pytest.fixture
def request_of_all(tmp_path: Path) -> ReportRequest:
    """All objects of an exam of 5 megapixels with earlier exams."""
    ramp = np.linspace(0, 4095, ROWS * COLUMNS).astype(np.uint16).reshape(ROWS, COLUMNS)
    dataset = radiograph(ramp, bits_stored=12)
    known = assessment().prediction
    levels = tuple(tuple((row * column) % 256 for column in range(11)) for row in range(11))
    box = HandBox(left=100, top=100, right=1900, bottom=2400)
    prior = PriorResult(
        study_date=date(2021, 7, 1),
        chronological_age_months=138.0,
        bone_age_months=113.0,
        model=known.model,
    )
    finding = assess(
        replace(known, saliency=Saliency(box=box, levels=levels), hand_box=box),
        sex=Sex.FEMALE,
        laterality=Laterality.LEFT,
        view_position="PA",
        chronological_age_months=150.0,
        reference=load_reference_table("greulich-pyle-v-vi"),
        notes=(),
        study_date=date(2022, 7, 1),
        priors=(prior,),
    )
    return request_for(tmp_path / "received.dcm", dataset, finding, kinds=frozenset(ReportKind))


def by_highdicom(reporter: SrReporter, request: ReportRequest) -> list[bytes]:
    """Both documents, from the received file on."""
    source = read_source(dcmread(request.path, stop_before_pixels=True))
    content = reporter._content(request, source)
    assert isinstance(content, AssessedContent)
    return [
        oracle.encoded(oracle.build_measurement_report(source, content), "ISO_IR 192"),
        oracle.encoded(oracle.build_narrative(source, content), "ISO_IR 192"),
    ]


def cpu_ms(run: Callable[[], object]) -> float:
    """Median CPU time of one run in milliseconds."""
    run()
    times = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        run()
        times.append((time.process_time() - begun) * 1000)
    return median(times)


def test_building_all_objects(request_of_all: ReportRequest) -> None:
    reporter = SrReporter()
    reporter.warm(frozenset(ReportKind))
    figures = {"all objects": cpu_ms(lambda: reporter.build(request_of_all))}
    for kind in ReportKind:
        one = replace(request_of_all, kinds=frozenset({kind}))
        figures[f"only {kind}"] = cpu_ms(partial(reporter.build, one))
    path = request_of_all.path
    figures["of these, decoding the radiograph"] = cpu_ms(lambda: display_pixels(path))
    documents = replace(request_of_all, kinds=SR)
    figures["both documents"] = cpu_ms(lambda: reporter.build(documents))
    figures["both documents by highdicom"] = cpu_ms(lambda: by_highdicom(reporter, documents))

    table = Table("what", "ms of CPU", title=f"one exam of {ROWS} x {COLUMNS} pixels")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    profile = cProfile.Profile()
    profile.runcall(lambda: [reporter.build(request_of_all) for _ in range(5)])
    pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    assert figures["both documents"] < figures["both documents by highdicom"] / 5
    assert figures["all objects"] < sum(figures[f"only {kind}"] for kind in ReportKind) * 1.2
