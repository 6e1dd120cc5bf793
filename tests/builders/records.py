"""Records as a node sends them to the centre."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.exam import Outcome, Sex
from dicom_node.domain.record import (
    DeliveryOutcome,
    DeliveryRecord,
    ExamRecord,
    ResultRecord,
    StageTimes,
)

RECEIVED_AT = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)


def record(number: int = 1, **differs: Any) -> ExamRecord:
    """An assessed exam of ``SP``'s node ``sp-1``; each number another patient, a minute apart."""
    received_at = RECEIVED_AT + timedelta(minutes=number)
    values: dict[str, Any] = {
        "region": "SP",
        "node": "sp-1",
        "institution_id": "hospital-a",
        "exam_pseudonym": sha256(f"exam {number}".encode()).hexdigest(),
        "patient_pseudonym": sha256(f"patient {number}".encode()).hexdigest(),
        "key_id": "0123456789abcdef",
        "received_at": received_at,
        "chronological_age_months": 120,
        "sex": Sex.FEMALE,
        "outcome": Outcome.ASSESSED,
        "reason": None,
        "result": ResultRecord(
            bone_age_months=126.5,
            sd_months=7.25,
            z_score=0.5,
            model=ModelIdentity(name="boneage-test", version="1.0.0", sha256="ab" * 32),
        ),
        "object_kinds": (ReportKind.MEASUREMENTS, ReportKind.NARRATIVE),
        "times": StageTimes(
            screen_seconds=0.1,
            infer_seconds=0.5,
            report_seconds=0.2,
            reported_at=received_at + timedelta(seconds=0.8),
        ),
        "deliveries": (
            DeliveryRecord(
                destination="pacs",
                outcome=DeliveryOutcome.DELIVERED,
                delivered_at=received_at + timedelta(seconds=1),
            ),
        ),
    }
    return ExamRecord(**(values | differs))
