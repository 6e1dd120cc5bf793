"""One answer, whichever way a radiograph takes: `predict` on a file and the network path through a
node agree to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from dicom_node.scp.archive_peer import ArchivePeer
from inference.phantom.dicom import Modality, write_radiograph
from inference.phantom.exams import phantom_exams
from sr_templates import concepts
from tests.builders.images import RSNA, real_file, real_radiographs
from tests.peers.node import Node, running_node, write_config

PHANTOMS = [f"phantom-{number}.dcm" for number in range(8)]
REAL = 4
MODALITIES: tuple[Modality, ...] = ("DX", "CR")


@dataclass(frozen=True, kw_only=True)
class Ways:
    """Both answers for each file, by its name."""

    offline: dict[str, dict[str, Any]]
    """Lines of ``predict --json``."""
    network: dict[str, dict[str, Any]]
    """``exam show --json`` after ``send``."""
    archive: ArchivePeer
    """What the node reported."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Phantoms of different ages, as DX and CR, and real radiographs where they are present."""
    folder = tmp_path_factory.mktemp("files")
    for number, exam in enumerate(phantom_exams(len(PHANTOMS), seed=15)):
        path, modality = folder / PHANTOMS[number], MODALITIES[number % 2]
        write_radiograph(path, exam, modality=modality, rows=1024, columns=768)
    if (RSNA / "full.csv").exists():
        for row in real_radiographs(REAL):
            real_file(folder, row["image_id"])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def ways(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    folder = tmp_path_factory.mktemp("ways")
    archive = ArchivePeer(folder / "archive")
    archive.start()
    write_config(
        folder / "node",
        [("archive", archive.ae_title, archive.bound_port)],
        extra='[inference]\ndevice = "cpu"\n',
    )
    with running_node(folder / "node") as node:
        offline = lines("predict", "--json", "--config", node.config, *files)
        to = f"127.0.0.1:{node.peer.port}/{node.peer.ae_title}"
        sent = lines("send", "--json", "--associations", 3, "--to", to, *files)
        assert {line["status"] for line in sent} == {0}
        node.wait_until_idle(120)
        yield Ways(
            offline={Path(line["path"]).name: line for line in offline},
            network={path.name: show(node, path) for path in files},
            archive=archive,
        )
    archive.stop()


def lines(*arguments: object) -> list[dict[str, Any]]:
    """JSON lines of a dicom-node command."""
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def show(node: Node, path: Path) -> dict[str, Any]:
    ledger = node.ledger()
    [exam_id] = ledger.exam_ids(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    ledger.close()
    return dict(node.command("exam", "show", str(exam_id), "--json"))


def assert_agree(ways: Ways, name: str) -> None:
    """Not nearly: the same float64 numbers, or the same doubt."""
    offline, network = ways.offline[name], ways.network[name]
    assert offline["outcome"] == network["exam"]["outcome"]
    if offline["outcome"] == "not_assessed":
        assert offline["reason"] == network["exam"]["reason"] == "indeterminate"
        return
    for number in ("bone_age_months", "sd_months", "hand_box", "model"):
        assert offline[number] == network["prediction"][number]
    for fact in ("chronological_age_months", "sex", "laterality", "notes"):
        assert offline[fact] == network["eligibility"][fact]
    assert_reported(ways, offline, network)


def assert_reported(ways: Ways, offline: dict[str, Any], network: dict[str, Any]) -> None:
    """The report in the archive states the same numbers, to two decimals."""
    uids = {report["kind"]: report["sop_instance_uid"] for report in network["reports"]}
    report = dcmread(ways.archive.path(uids["measurements"]))
    stated = dict(numbers(report))
    for concept, key in (
        (concepts.BONE_AGE, "bone_age_months"),
        (concepts.UNCERTAINTY, "sd_months"),
        (concepts.CHRONOLOGICAL_AGE, "chronological_age_months"),
        (concepts.DIFFERENCE, "difference_months"),
        (concepts.POPULATION_SD, "population_sd_months"),
        (concepts.Z_SCORE, "z_score"),
    ):
        assert stated[concept.value] == round(offline[key], 2), key


def numbers(container: Dataset) -> Iterator[tuple[str, float]]:
    """Concept code and value of every NUM item below a container (PS3.3 C.18.1)."""
    for item in container.get("ContentSequence", []):
        if item.ValueType == "NUM":
            value = float(item.MeasuredValueSequence[0].NumericValue)
            yield item.ConceptNameCodeSequence[0].CodeValue, value
        yield from numbers(item)


@pytest.mark.parametrize("name", PHANTOMS)
def test_predict_and_the_network_path_agree_exactly_on_a_phantom(ways: Ways, name: str) -> None:
    assert_agree(ways, name)


@pytest.mark.parametrize("number", range(REAL))
def test_predict_and_the_network_path_agree_exactly_on_a_real_radiograph(
    ways: Ways, number: int
) -> None:
    [*_, row] = real_radiographs(number + 1)
    assert_agree(ways, f"{row['image_id']}.dcm")


def test_the_phantoms_are_different_questions_with_different_answers(ways: Ways) -> None:
    found = [ways.offline[name] for name in PHANTOMS]
    answers = {one["bone_age_months"] for one in found if one["outcome"] == "assessed"}
    assert len(answers) >= len(PHANTOMS) / 2
    assert max(answers) - min(answers) > 24
