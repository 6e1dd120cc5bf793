"""Small fakes of the ports around a stage: what they answer is set by the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.domain.assessment import HandBox, ModelIdentity, Prediction
from dicom_node.domain.delivery import NOTHING_DELIVERED, Answer, ReportKind, ReportObject
from dicom_node.domain.eligibility import Reason
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.ports import KeptObject, PredictionRequest, ReportRequest

MODEL = ModelIdentity(name="fake", version="1", sha256="ab" * 32)
PREDICTION = Prediction(
    bone_age_months=126.0,
    sd_months=7.0,
    hand_box=HandBox(left=10, top=20, right=300, bottom=400),
    findings=(),
    saliency=None,
    model=MODEL,
)


class NamedSpool:
    """A spool whose objects are only names."""

    def keep(self, partial: Path, *, content_sha256: str | None = None) -> KeptObject:
        return KeptObject(content_sha256=content_sha256 or partial.stem, size_bytes=1)

    def verify(self, content_sha256: str) -> None:
        if content_sha256 == "rotten":
            raise Permanent(Fault.CORRUPT_SPOOL, "the object has changed")

    def path(self, content_sha256: str) -> Path:
        if content_sha256 == "missing":
            raise Permanent(Fault.CORRUPT_SPOOL, "the object is missing")
        return Path(content_sha256)


@dataclass
class ScriptedPredictor:
    """Answers by file name; everything else gets PREDICTION. ``batches`` records the calls."""

    answers: dict[str, Prediction | Reason | Exception] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    def predict(
        self, requests: Iterable[PredictionRequest]
    ) -> list[Prediction | Reason | Exception]:
        answers = [self.answers.get(request.path.name, PREDICTION) for request in requests]
        self.batches.append(len(answers))
        return answers


@dataclass
class RecordingReporter:
    """Returns one object per kind and remembers what was asked for."""

    requests: list[ReportRequest] = field(default_factory=list)

    def build(self, request: ReportRequest) -> tuple[ReportObject, ...]:
        self.requests.append(request)
        kinds = [ReportKind.NARRATIVE]
        if not isinstance(request.finding, Reason):
            kinds.insert(0, ReportKind.MEASUREMENTS)
        return tuple(
            ReportObject(
                kind=kind,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.88.22",
                sop_instance_uid=f"2.25.{len(self.requests)}.{index}",
                series_instance_uid=f"2.25.9.{index}",
                encoded=b"encoded",
            )
            for index, kind in enumerate(kinds)
        )


@dataclass
class ScriptedSender:
    """Answers with the given statuses in turn, then with success; an exception is raised.
    ``delivered``: what the destination had before the last object."""

    script: list[int | Exception] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)
    delivered: Mapping[str, Answer] = field(default_factory=dict)

    def send(
        self,
        destination: str,
        report: ReportObject,
        delivered: Mapping[str, Answer] = NOTHING_DELIVERED,
    ) -> Answer:
        self.sent.append((destination, report.sop_instance_uid))
        self.delivered = delivered
        answer = self.script.pop(0) if self.script else 0x0000
        if isinstance(answer, Exception):
            raise answer
        return Answer(
            status=answer,
            sent_sop_class_uid=report.sop_class_uid,
            sent_sop_instance_uid=report.sop_instance_uid,
        )


class SilentBell:
    """Never rings and never waits."""

    def wait(self, seconds: float) -> None:
        """Return at once."""
