"""Assess DICOM files without a running node: the same decisions as the network path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from dicom_node.domain.assessment import Assessment, Prediction
from dicom_node.domain.eligibility import Disposition, Ineligible, Reason, screen
from dicom_node.domain.errors import Fault, NodeError
from dicom_node.domain.exam import Outcome
from dicom_node.headers import read_header
from dicom_node.ports import PredictionRequest
from dicom_node.stages.report import assessment_of
from dicom_node.stages.screen import eligibility_of
from dicom_node.wiring import Wiring


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What the node would do with a file. ``error`` is set when the file cannot be processed."""

    path: Path
    outcome: Outcome | None = None
    reason: Reason | None = None
    assessment: Assessment | None = None
    fault: Fault | None = None
    error: str = ""


def assess_files(wiring: Wiring, paths: Iterable[Path]) -> Iterator[FileResult]:
    """One result per file, in order; nothing is stored or sent."""
    for path in paths:
        try:
            yield _assess(wiring, path)
        except NodeError as error:
            yield FileResult(path=path, fault=error.fault, error=str(error))


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Files as they are; folders with everything below them, sorted. Hidden files are left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = path.rglob("*")
            found += sorted(p for p in below if p.is_file() and not p.name.startswith("."))
        else:
            found.append(path)
    return found


def picture_names(files: Sequence[Path]) -> dict[Path, str]:
    """A file name for the picture of each file; files of the same name get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in dict.fromkeys(files):
        name = file.name.removesuffix(".dcm")
        numbered = (f"{name}-{number}" for number in count(2))
        free = next(candidate for candidate in chain([name], numbered) if candidate not in taken)
        taken.add(free)
        names[file] = f"{free}.png"
    return names


def _assess(wiring: Wiring, path: Path) -> FileResult:
    header = read_header(path)
    decision = screen(header)
    if isinstance(decision, Ineligible):
        ignored = decision.disposition is Disposition.IGNORE
        outcome = Outcome.IGNORED if ignored else Outcome.NOT_ASSESSED
        return FileResult(path=path, outcome=outcome, reason=decision.reason)
    [answer] = wiring.predictor.predict([PredictionRequest(path=path, sex=decision.sex)])
    if isinstance(answer, Prediction):
        eligibility = eligibility_of(header, decision, None)
        return FileResult(
            path=path,
            outcome=Outcome.ASSESSED,
            assessment=assessment_of(eligibility, answer, wiring.reference),
        )
    if isinstance(answer, Reason):
        return FileResult(path=path, outcome=Outcome.NOT_ASSESSED, reason=answer)
    raise answer
