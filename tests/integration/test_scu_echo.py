"""C-ECHO that explains itself, against DCMTK and against peers that misbehave."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
)

from dicom_node.adapters.scu import (
    Peer,
    echo,
)
from dicom_node.adapters.scu.echo import HINTS, Hint, Step, StepName, diagnose
from dicom_node.scp.archive_peer import ArchivePeer
from tests.integration.peers import (
    ABORT,
    association_rejection,
    canned_peer,
    free_port,
    reset_connection,
    running_storescp,
    taking,
)


def steps_to(port: int, ae_title: str = "ARCHIVE", host: str = "127.0.0.1") -> list[Step]:
    peer = Peer(host=host, port=port, ae_title=ae_title)
    return list(diagnose(peer, calling_ae_title="BONEAGE", timeout_seconds=2))


def test_a_good_destination_passes_every_step(archive: ArchivePeer) -> None:
    steps = steps_to(archive.bound_port)
    assert [step.name for step in steps] == list(StepName)
    assert all(step.ok and step.hint is Hint.NONE for step in steps)
    assert "Comprehensive 3D SR Storage: yes" in steps[-1].detail


def test_storescp_for_images_only_cannot_take_reports(tmp_path: Path) -> None:
    with running_storescp(
        tmp_path / "pacs", *taking(tmp_path, ComputedRadiographyImageStorage)
    ) as port:
        last = steps_to(port)[-1]
    assert (last.name, last.ok, last.hint) == (StepName.CONTEXTS, False, Hint.NO_REPORT_CLASS)


def test_an_unknown_host_name_is_said_so() -> None:
    [step] = steps_to(104, host="pacs.invalid")
    assert (step.name, step.ok, step.hint) == (StepName.NAME, False, Hint.CHECK_HOST_NAME)


def test_a_closed_port_is_said_so() -> None:
    step = steps_to(free_port())[-1]
    assert (step.name, step.ok, step.hint) == (StepName.TCP, False, Hint.CHECK_PORT)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ((1, 1, 3), Hint.CHECK_CALLING_AE_TITLE),
        ((1, 1, 7), Hint.CHECK_CALLED_AE_TITLE),
        ((2, 3, 2), Hint.TRY_LATER),
        ((1, 1, 1), Hint.ASK_PEER),
    ],
)
def test_a_rejection_is_explained(code: tuple[int, int, int], hint: Hint) -> None:
    with canned_peer(association_rejection(*code)) as port:
        step = steps_to(port)[-1]
    assert (step.name, step.ok, step.hint) == (StepName.ASSOCIATION, False, hint)


@pytest.mark.parametrize("answer", [ABORT, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_that_is_no_dicom_peer_is_said_so(answer: bytes) -> None:
    with canned_peer(answer) as port:
        step = steps_to(port)[-1]
    assert (step.name, step.ok, step.hint) == (StepName.ASSOCIATION, False, Hint.NOT_DICOM)


def test_every_hint_is_said_in_both_languages() -> None:
    assert set(HINTS) == set(Hint)
    assert all(set(texts) == {"en", "pt-BR"} for texts in HINTS.values())


def test_echo_explains_a_reset_before_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "connect", reset_connection)
    peer = Peer(host="127.0.0.1", port=free_port(), ae_title="PACS")
    *_, last = diagnose(peer, calling_ae_title="BONEAGE")
    assert (last.name, last.ok, last.hint) == (StepName.ASSOCIATION, False, Hint.NOT_DICOM)
