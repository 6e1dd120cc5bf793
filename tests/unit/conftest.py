"""What several unit tests ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.domain.assessment import Assessment
from dicom_node.domain.eligibility import Reason
from dicom_node.ports import ReportRequest
from tests.builders.reports import Sent, request_for


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    """Write a header as a received file and ask for its report."""

    def request(dataset: Dataset, finding: Assessment | Reason, **changes: Any) -> ReportRequest:
        return request_for(tmp_path / "received.dcm", dataset, finding, **changes)

    return request
