"""PixelMed's validator on one report of each kind and language, and on what is not assessed.

It takes a quarter of a minute for a file: `make pixelmed` runs it. Its rules are of 2022.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.eligibility import Reason
from tests.builders.reports import assessment, previous, prior, radiograph, request_for

pytestmark = [pytest.mark.pixelmed, pytest.mark.timeout(1200)]

JARS = Path("/usr/share/java")
CLASS = "com.pixelmed.validate.DicomSRValidator"
LIMITS = ("xpathTotalOpLimit", "xpathExprOpLimit", "xpathExprGrpLimit")
ALLOWED = Path(__file__).parents[1] / "pixelmed_allow_list.toml"


def complaints(path: Path) -> set[str]:
    """Errors and warnings, without the place in the tree."""
    java = shutil.which("java")
    if java is None or not (JARS / "pixelmed.jar").exists():
        pytest.skip("PixelMed is missing: apt-get install libpixelmed-java default-jre-headless")
    jars = ":".join(str(jar) for jar in sorted(JARS.glob("*.jar")))
    options = [f"-Djdk.xml.{limit}=0" for limit in LIMITS]
    done = subprocess.run(
        [java, *options, "-cp", jars, CLASS, str(path)], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert "Root Template Validation Complete" in said, said[-2000:]
    lines = (line for line in said.splitlines() if re.match(r"(Error|Warning):", line))
    return {re.sub(r"^(\w+): .*?: ", r"\1: ", line).strip() for line in lines}


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize(
    "finding", [assessment(priors=(prior(113.0),)), Reason.INDETERMINATE], ids=["age", "none"]
)
def test_pixelmed_says_what_the_allow_list_allows(
    tmp_path: Path, finding: object, language: str
) -> None:
    allowed = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))["allowed"]
    assert all(entry["reason"].strip() for entry in allowed)
    before = SrReporter().build(request_for(tmp_path / "first.dcm", radiograph(), assessment()))
    request = request_for(
        tmp_path / "received.dcm",
        radiograph(),
        finding,  # type: ignore[arg-type]  # parametrized
        language=language,
        previous=previous(before),
        content_sha256="cd" * 32,
    )
    raised = set()
    for made in SrReporter().build(request):
        assert made.kind in (ReportKind.MEASUREMENTS, ReportKind.NARRATIVE)
        path = tmp_path / f"{made.kind}.dcm"
        path.write_bytes(made.encoded)
        raised |= complaints(path)
    assert raised - {entry["message"] for entry in allowed} == set()
