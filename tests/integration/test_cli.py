"""The command line as its users run it: a process, its exit code and its two output streams."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import dcmread

from dicom_node.adapters.scu.echo import HINTS, Hint
from dicom_node.adapters.scu.exam_sender import send_files
from dicom_node.adapters.wording import explain
from dicom_node.cli import main
from dicom_node.scp.archive_peer import ArchivePeer
from tests.builders.radiographs import radiograph
from tests.integration.peers import canned_peer, free_port, running_storescp, wait_until
from tests.peers.node import Node, running_node, write_config

CANARY = "ZZCANARY"
LOCALE = ("LANG", "LC_ALL", "LC_MESSAGES", "DICOM_NODE_CONFIG")


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines: fails when anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        [found] = self.lines
        return found


@dataclass(frozen=True, kw_only=True)
class Journey:
    """A node and what was sent to it."""

    node: Node
    files: Path
    port: int
    """Of the destination, which nobody listens on."""

    def exams(self) -> dict[str, int]:
        """Sent file's name to exam id: they were sent one after the other."""
        listed = run("exam", "list", "--json", "--config", self.node.config).document
        names = sorted(path.name for path in self.files.iterdir())
        return dict(zip(names, sorted(exam["exam_id"] for exam in listed), strict=True))

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """The jobs of a file's exam, oldest first."""
        return list(self.show(name)["jobs"])

    def show(self, name: str) -> dict[str, Any]:
        """Everything about a file's exam."""
        exam_id = self.exams()[name]
        found = run("exam", "show", exam_id, "--json", "--config", self.node.config).document
        return dict(found)


def run(*arguments: object) -> Done:
    """Run ``dicom-node`` in this process: what it says and its exit code; quick."""
    done = CliRunner().invoke(main, list(map(str, arguments)), env=dict.fromkeys(LOCALE))
    if done.exc_info and not isinstance(done.exc_info[1], SystemExit):
        raise done.exc_info[1]
    return Done(code=done.exit_code, out=done.stdout, err=done.stderr)


def run_process(
    *arguments: object, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Done:
    """Run ``dicom-node`` as its users do, in English unless the environment says otherwise."""
    clean = {name: value for name, value in os.environ.items() if name not in LOCALE}
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env=clean | dict(environment or {}),
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dicom_node", *map(str, arguments)]


def write_radiograph(path: Path, number: int, **values: object) -> Path:
    named = {"PatientName": f"{CANARY}^TEST", "PatientID": CANARY}
    radiograph(number, **named, **values).save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand, one that is said to be both, a lateral view and a chest; read-only."""
    folder = tmp_path_factory.mktemp("files")
    write_radiograph(folder / "1-hand.dcm", 1)
    write_radiograph(folder / "2-both.dcm", 2, ImageLaterality="B")
    write_radiograph(folder / "3-lateral.dcm", 3, ViewPosition="LL")
    chest = {"BodyPartExamined": "CHEST", "AnatomicRegionSequence": None}
    write_radiograph(folder / "4-chest.dcm", 4, **chest)
    return folder


def write_broken(path: Path) -> Path:
    """An object that is named in its head and cannot be read any further: endless items in items
    of Contributing Equipment Sequence."""
    content = write_radiograph(path, 5).read_bytes()
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID).encode()
    end = content.rindex(uid) + len(uid) + len(uid) % 2
    nested = bytes.fromhex("180001A0") + b"SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\0\xe0" + b"\xff" * 4
    path.write_bytes(content[:end] + nested * 5000)
    return path


@pytest.fixture(scope="module")
def journey(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """A node that has received the files and a broken one, and whose only destination is down."""
    folder = tmp_path_factory.mktemp("node")
    files = shutil.copytree(files, folder / "files")
    write_broken(files / "5-broken.dcm")
    port = free_port()
    write_config(
        folder, [("pacs", "PACS", port)], extra='[inference]\nworkers = 1\ndevice = "cpu"\n'
    )
    with running_node(folder) as node:
        sent = list(send_files(sorted(files.iterdir()), node.peer, calling_ae_title="MODALITY"))
        assert [item.status for item in sent] == [0, 0, 0, 0, 0]
        found = Journey(node=node, files=files, port=port)
        ledger = node.ledger()
        wait_until(
            lambda: all(
                any(job.fault for job in summary.open_jobs) or summary.outcome == "ignored"
                for summary in ledger.exams(limit=10)
            ),
            seconds=30,
        )
        ledger.close()
        yield found


# predict


@pytest.fixture(scope="module")
def predicted(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    """predict --json --png of the folder and a text file, and the folder of pictures."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "notes.txt").write_text(f"{CANARY} is no DICOM file")
    pictures = folder / "pictures"
    done = run_process("predict", files, folder / "notes.txt", "--json", "--png", pictures)
    return done, pictures


def test_predict_answers_every_file_with_one_json_line(
    predicted: tuple[Done, Path], files: Path
) -> None:
    done, pictures = predicted
    found = {Path(line["path"]).name: line for line in done.lines}
    assert {name: (line["outcome"], line["reason"]) for name, line in found.items()} == {
        "1-hand.dcm": ("assessed", None),
        "2-both.dcm": ("assessed", None),
        "3-lateral.dcm": ("not_assessed", "view_not_frontal"),
        "4-chest.dcm": ("ignored", "other_body_part"),
        "notes.txt": ("failed", "unreadable_object"),
    }
    hand = found["1-hand.dcm"]
    assert 0 < hand["bone_age_months"] < 240
    assert 0 < hand["sd_months"] < 60
    assert hand["sex"] == "F"
    assert hand["laterality"] == "L"
    assert hand["difference_months"] == hand["bone_age_months"] - hand["chronological_age_months"]
    assert hand["z_score"] == hand["difference_months"] / hand["population_sd_months"]
    assert set(hand["hand_box"]) == {"left", "top", "right", "bottom"}
    assert set(hand["model"]) == {"name", "version", "sha256"}
    assert hand["picture"] == str(pictures / "1-hand.png")
    assert "saliency" not in hand
    assert found["2-both.dcm"]["laterality"] == "U"
    assert "laterality_unstated" in found["2-both.dcm"]["notes"]


def test_predict_fails_when_a_file_cannot_be_read_but_answers_the_others(
    predicted: tuple[Done, Path],
) -> None:
    done, _ = predicted
    assert done.code == 1
    assert "not a readable DICOM file" in done.lines[-1]["error"]
    assert done.err == ""


def test_predict_draws_a_picture_of_what_it_assessed_and_of_nothing_else(
    predicted: tuple[Done, Path],
) -> None:
    _, pictures = predicted
    assert {path.name for path in pictures.iterdir()} == {"1-hand.png", "2-both.png"}
    with Image.open(pictures / "1-hand.png") as picture:
        assert picture.width > 480
        assert picture.height >= 640


def test_predict_says_nothing_about_the_patient(predicted: tuple[Done, Path]) -> None:
    assert CANARY not in predicted[0].out + predicted[0].err


def test_pictures_of_files_with_the_same_name_do_not_replace_each_other(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        write_radiograph(tmp_path / name / "1.2.840.7", number)
    done = run("predict", tmp_path, "--json", "--png", tmp_path / "png")
    pictures = [Path(line["picture"]).name for line in done.lines]
    assert pictures == ["1.2.840.7.png", "1.2.840.7-2.png"]
    assert {path.name for path in (tmp_path / "png").iterdir()} == set(pictures)


def test_predict_in_words_names_the_age_and_the_reason(files: Path) -> None:
    done = run("predict", files)
    assert done.code == 0
    assert done.err == ""
    hand, *_ = done.out.splitlines()
    assert hand.startswith(str(files / "1-hand.dcm"))
    assert "bone age" in hand
    assert "chronological age" in hand
    assert f"view_not_frontal): {explain('view_not_frontal', 'en')}" in done.out


@pytest.mark.parametrize(("language", "word"), [("en", "Note"), ("pt-BR", "Observação")])
def test_predict_in_words_gives_the_notes(files: Path, language: str, word: str) -> None:
    done = run("--lang", language, "predict", files / "2-both.dcm")
    first, *notes = done.out.splitlines()
    assert first.startswith(str(files / "2-both.dcm"))
    assert f"  {word}: {explain('laterality_unstated', language)}" in notes


def test_predict_quotes_no_broken_header_value(tmp_path: Path) -> None:
    odd = write_radiograph(tmp_path / "odd.dcm", 1)
    content = odd.read_bytes()
    for valid, broken in ((b"20150102", b"ZZCANARY"), (b"HAND PA ", b"ZZCANARY")):
        assert valid in content
        content = content.replace(valid, broken)
    odd.write_bytes(content)
    done = run_process("predict", odd, "--png", tmp_path)
    assert done.code == 0, done.err
    assert CANARY not in done.out + done.err


@pytest.mark.parametrize("arguments", [("predict",), ("send", "--to", "localhost:104/PACS")])
def test_a_folder_without_files_is_a_failure_and_not_silence(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = run(*arguments, tmp_path)
    assert done.code == 1
    assert f"no files in {tmp_path}" in done.err


# status, exam, job


def test_status_shows_queues_outcomes_and_destinations_without_patient_data(
    journey: Journey,
) -> None:
    done = run("status", "--json", "--config", journey.node.config)
    found = done.document
    assert done.code == 0
    assert found["ready"]["status"] == "ok"
    assert {(row["stage"], row["state"]): row["jobs"] for row in found["queues"]}[
        "screen", "parked"
    ] == 1
    assert {(row["outcome"], row["reason"]): row["exams"] for row in found["exams"]} == {
        ("assessed", None): 2,
        ("pending", None): 1,
        ("not_assessed", "view_not_frontal"): 1,
        ("ignored", "other_body_part"): 1,
    }
    assert found["destinations"] == [
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": journey.port}
    ]
    assert len(found["last_exams"]) == 5
    assert CANARY not in done.out
    assert "2.25." not in done.out


def test_status_knows_the_running_node_whatever_proxy_the_environment_names(
    journey: Journey,
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), nowhere) | {"no_proxy": ""}
    done = run_process("status", "--json", "--config", journey.node.config, environment=proxies)
    assert done.document["ready"]["status"] == "ok"


def test_exam_list_shows_the_newest_first_and_filters_by_outcome(journey: Journey) -> None:
    listed = run("exam", "list", "--json", "--config", journey.node.config).document
    assert [row["exam_id"] for row in listed] == sorted(journey.exams().values(), reverse=True)
    ignored = run(
        "exam", "list", "--json", "--outcome", "ignored", "--config", journey.node.config
    ).document
    assert [row["exam_id"] for row in ignored] == [journey.exams()["4-chest.dcm"]]
    one = run("exam", "list", "--json", "--limit", 1, "--config", journey.node.config).document
    assert one == listed[:1]


def test_exam_show_tells_the_journey_of_an_assessed_exam(journey: Journey) -> None:
    found = journey.show("1-hand.dcm")
    assert found["exam"]["outcome"] == "assessed"
    assert found["prediction"]["bone_age_months"] > 0
    assert "saliency" not in found["prediction"]
    assert [report["kind"] for report in found["reports"]] == ["measurements", "narrative"]
    assert [job["stage"] for job in found["jobs"]] == ["screen", "infer", "report", "deliver"]
    assert found["jobs"][-1]["fault"] == "destination_unavailable"
    assert found["journal"][0]["event"] == "received"
    assert "T" in found["journal"][0]["at"]


def test_exam_show_says_nothing_that_leads_to_the_patient(journey: Journey) -> None:
    found = journey.show("1-hand.dcm")["eligibility"]
    assert found["sex"] in {"F", "M"}
    assert not {"study_date", "patient_pseudonym"} & set(found)


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_exam_show_explains_in_words_why_there_is_no_bone_age(
    journey: Journey, language: str
) -> None:
    exam_id = journey.exams()["3-lateral.dcm"]
    done = run("--lang", language, "exam", "show", exam_id, "--config", journey.node.config)
    assert done.code == 0
    assert explain("view_not_frontal", language) in done.out


def test_exam_show_gives_the_notes_of_the_report(journey: Journey) -> None:
    assert "laterality_unstated" in journey.show("2-both.dcm")["notes"]
    exam_id = journey.exams()["2-both.dcm"]
    done = run("exam", "show", exam_id, "--config", journey.node.config)
    assert f"Note: {explain('laterality_unstated', 'en')}" in done.out


def test_job_list_filters_by_state(journey: Journey) -> None:
    parked = run(
        "job", "list", "--json", "--state", "parked", "--config", journey.node.config
    ).document
    assert (journey.exams()["5-broken.dcm"], "unreadable_object") in [
        (job["exam_id"], job["fault"]) for job in parked
    ]
    assert {job["state"] for job in parked} == {"parked"}


def test_a_parked_job_can_be_retried_and_parks_again_while_its_cause_lasts(
    journey: Journey,
) -> None:
    [job] = journey.jobs("5-broken.dcm")
    done = run("job", "retry", job["job_id"], "--config", journey.node.config)
    assert (done.code, done.out) == (0, f"Job {job['job_id']} is queued again.\n")

    def parked_again() -> bool:
        [now] = journey.jobs("5-broken.dcm")
        return bool(now["state"] == "parked" and now["attempt"] > job["attempt"])

    wait_until(parked_again, seconds=30)


def test_a_person_can_park_a_waiting_delivery_and_then_give_it_up(journey: Journey) -> None:
    config = journey.node.config
    job_id = journey.jobs("3-lateral.dcm")[-1]["job_id"]
    reason = "see [[destinations]], [/ticket 7]"
    assert run("job", "park", job_id, "--reason", reason, "--config", config).code == 0
    assert journey.jobs("3-lateral.dcm")[-1]["fault"] == "operator"
    listed = run("job", "list", "--config", config)
    assert listed.code == 0
    assert reason in listed.out

    assert run("job", "discard", job_id, "--reason", "PACS is gone", "--config", config).code == 0
    [*_, discarded] = journey.jobs("3-lateral.dcm")
    assert (discarded["state"], discarded["detail"]) == ("discarded", "PACS is gone")


def test_an_exam_is_assessed_again(journey: Journey) -> None:
    exam_id = journey.exams()["4-chest.dcm"]
    done = run("exam", "reassess", exam_id, "--config", journey.node.config)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Exam {exam_id} is assessed again.\n"

    def done_twice() -> bool:
        states = [(job["stage"], job["state"]) for job in journey.jobs("4-chest.dcm")]
        return states == [("screen", "done"), ("screen", "done")]

    wait_until(done_twice, seconds=30)
    assert journey.show("4-chest.dcm")["exam"]["outcome"] == "ignored"


def test_an_exam_with_an_open_job_is_not_assessed_again(journey: Journey) -> None:
    exam_id = journey.exams()["1-hand.dcm"]
    done = run("exam", "reassess", exam_id, "--config", journey.node.config)
    assert done.code == 1
    assert done.err == f"Error: exam {exam_id} has open jobs: finish those first\n"


@pytest.mark.parametrize("exam_id", [4711, 10**15])
def test_an_unknown_exam_is_not_assessed_again(journey: Journey, exam_id: int) -> None:
    done = run("exam", "reassess", exam_id, "--config", journey.node.config)
    assert done.code == 1
    assert str(exam_id) in done.err


def test_a_step_that_the_life_cycle_does_not_have_says_so_once(journey: Journey) -> None:
    job_id = journey.jobs("1-hand.dcm")[0]["job_id"]
    done = run("job", "retry", job_id, "--config", journey.node.config)
    assert done.code == 1
    assert done.err == f"Error: job {job_id}: a done job cannot take the step retry\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exam", "show", 9999), "no exam 9999"),
        (("job", "retry", 9999), "no job 9999"),
        (("job", "park", 9999, "--reason", "x"), "no job 9999"),
        (("job", "discard", 9999, "--reason", "x"), "no job 9999"),
    ],
)
def test_an_unknown_number_is_a_failure_with_the_command_that_lists_them(
    journey: Journey, arguments: tuple[object, ...], message: str
) -> None:
    done = run(*arguments, "--config", journey.node.config)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert "list`" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("exam", "show", "99999999999999999999"),
        ("job", "retry", "99999999999999999999"),
        ("exam", "list", "--limit", "99999999999999999999"),
        ("exam", "show", "one"),
        ("job", "discard", "1"),
        ("exam", "list", "--outcome", "maybe"),
        ("send", "nowhere.dcm", "--to", "localhost:104/PACS"),
        ("send", "--to", "localhost/PACS", "."),
        ("send", "--to", "localhost:99999/PACS", "."),
        ("predict",),
        ("unknown",),
        ("--lang", "de", "status"),
    ],
)
def test_wrong_usage_ends_with_2_and_no_traceback(
    arguments: tuple[str, ...],
) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: " in done.err


# send


def test_send_stores_every_file_and_sums_up(journey: Journey) -> None:
    to = f"127.0.0.1:{journey.node.peer.port}/BONEAGE"
    done = run_process("send", journey.files, "--to", to, "--from", "ADMIN", "--associations", 2)
    assert (done.code, done.err) == (0, "")
    assert "5 of 5 stored in " in done.out

    lines = run("send", journey.files, "--to", to, "--json").lines
    assert {Path(line["path"]).name for line in lines} == {p.name for p in journey.files.iterdir()}
    assert {line["status"] for line in lines} == {0}
    assert all(line["seconds"] > 0 for line in lines)
    assert len(journey.exams()) == 5  # sent before: nothing new


def test_send_shows_its_progress_on_standard_error_of_a_terminal(journey: Journey) -> None:
    ours, theirs = pty.openpty()
    arguments = ("send", journey.files, "--to", f"127.0.0.1:{journey.node.peer.port}/BONEAGE")
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=theirs) as sender:
        os.close(theirs)
        shown = b"".join(read_until_hangup(ours))
        assert sender.stdout is not None
        assert b"5 of 5 stored" in sender.stdout.read()
        assert sender.wait(60) == 0
    assert b"sending" in shown
    assert b"100%" in shown


def read_until_hangup(descriptor: int) -> Iterator[bytes]:
    """What a terminal shows until its program has ended."""
    while True:
        try:
            yield os.read(descriptor, 65536)
        except OSError:
            os.close(descriptor)
            return


def test_send_to_a_closed_port_fails_and_names_every_file(files: Path) -> None:
    port = free_port()
    done = run_process("send", files, "--to", f"127.0.0.1:{port}/PACS")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert all(f"PACS at 127.0.0.1:{port}: no connection" in line for line in lines[:4])
    assert lines[-1].startswith("0 of 4 stored in ")


def test_send_stores_the_others_when_a_file_is_no_dicom(journey: Journey, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text(CANARY)
    to = f"127.0.0.1:{journey.node.peer.port}/BONEAGE"
    done = run("send", text, journey.files / "1-hand.dcm", "--to", to, "--json")
    assert done.code == 1
    assert [line["status"] for line in done.lines] == [None, 0]
    assert CANARY not in done.out


def test_send_repeats_as_new_exams_at_a_rate(archive: ArchivePeer, files: Path) -> None:
    load = ("--repeat", 3, "--rate", "40/s", "--associations", 4)
    done = run("send", files / "1-hand.dcm", "--to", f"127.0.0.1:{archive.bound_port}/A", *load)
    assert done.code == 0
    assert "3 of 3 stored in " in done.out
    assert "behind the rate" in done.out
    assert len(archive.arrived) == 3


def test_send_for_a_duration_ends_by_itself(archive: ArchivePeer, files: Path) -> None:
    load = ("--duration", 1, "--rate", "600/min", "--json")
    done = run("send", files / "1-hand.dcm", "--to", f"127.0.0.1:{archive.bound_port}/A", *load)
    assert done.code == 0
    [answer] = done.lines[-1]["summary"]["answers"]
    assert answer["status"] == "0x0000"
    assert 0 < answer["p50"] <= answer["p95"] <= answer["p99"]
    assert done.lines[-1]["summary"]["stored"] == len(archive.arrived) <= 10


@pytest.mark.parametrize("rate", ["fast", "0/s", "5/day"])
def test_a_rate_that_is_none_is_a_wrong_usage(rate: str, files: Path) -> None:
    done = run("send", files, "--to", "localhost:104/PACS", "--rate", rate)
    assert (done.code, done.out) == (2, "")
    assert "is no rate" in done.err


# echo


def test_echo_reaches_a_peer_and_says_which_reports_it_takes(tmp_path: Path) -> None:
    with running_storescp(tmp_path / "pacs") as port:
        done = run("echo", "--to", f"127.0.0.1:{port}/PACS", "--json")
    assert (done.code, done.err) == (0, "")
    assert {step["name"]: step["ok"] for step in done.document["steps"]} == {
        "name": True,
        "tcp": True,
        "association": True,
        "echo": True,
        "contexts": True,
    }


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_echo_of_a_closed_port_says_in_words_what_to_check(journey: Journey, language: str) -> None:
    done = run("--lang", language, "echo", "pacs", "--config", journey.node.config)
    assert (done.code, done.err) == (1, "")
    assert HINTS[Hint.CHECK_PORT][language] in done.out


def test_echo_of_a_wrong_ae_title_says_in_words_what_to_check(journey: Journey) -> None:
    done = run("echo", "--to", f"127.0.0.1:{journey.node.peer.port}/BONEAG")
    assert done.code == 1
    assert HINTS[Hint.CHECK_CALLED_AE_TITLE]["en"] in done.out


def test_echo_of_something_else_says_that_it_is_not_dicom() -> None:
    with canned_peer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        done = run("echo", "--to", f"127.0.0.1:{port}/PACS")
    assert done.code == 1
    assert HINTS[Hint.NOT_DICOM]["en"] in done.out


def test_echo_of_an_unknown_destination_names_the_configured_ones(journey: Journey) -> None:
    done = run("echo", "archive", "--config", journey.node.config)
    assert (done.code, done.out) == (1, "")
    assert "configured: pacs" in done.err


# doctor


@pytest.mark.parametrize("exists", [True, False])
def test_doctor_finds_nothing_on_a_fresh_folder(tmp_path: Path, *, exists: bool) -> None:
    config = write_config(tmp_path, [])
    if exists:
        (tmp_path / "data").mkdir()
    done = run_process("doctor", "--json", "--config", config)
    found = {check["name"]: check["status"] for check in done.document}
    assert set(found.values()) == {"ok"}, done.out
    assert {"data folder", "disk", "clock", "ledger", "model", "decoders", "port"} <= set(found)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "data").exists() is exists


def test_doctor_fails_with_what_to_do_when_a_destination_does_not_answer(
    journey: Journey,
) -> None:
    done = run("doctor", "--json", "--config", journey.node.config)
    [failed] = [check for check in done.document if check["status"] == "failed"]
    assert done.code == 1
    assert failed["name"] == "destination pacs"
    assert HINTS[Hint.CHECK_PORT]["en"] in failed["found"]
    assert "destination pacs" in done.err


@pytest.mark.parametrize("key", ["port", "metrics_port"])
def test_doctor_and_serve_name_a_port_that_is_taken(tmp_path: Path, key: str) -> None:
    with canned_peer(b"") as port:
        other = "metrics_port" if key == "port" else "port"
        config = tmp_path / "node.toml"
        config.write_text(
            f'[node]\n{key} = {port}\n{other} = 0\ndata_dir = "{tmp_path / "data"}"\n'
        )
        checked = run("doctor", "--json", "--config", config)
        served = run_process("serve", "--config", config)
    [failed] = [check for check in checked.document if check["status"] == "failed"]
    assert failed["name"] == key.replace("_", " ")
    assert f"127.0.0.1:{port}" in failed["found"]
    assert (checked.code, served.code) == (1, 1)
    assert f"Error: 127.0.0.1:{port}: Address already in use" in served.err


# configuration, language, output


@pytest.mark.parametrize(
    "arguments", [("status",), ("serve",), ("doctor",), ("predict", "."), ("echo",)]
)
def test_an_unknown_key_ends_with_2_and_is_named(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    config = tmp_path / "node.toml"
    config.write_text("[node]\nprot = 11112\n")
    done = run(*arguments, "--config", config)
    assert (done.code, done.out) == (2, "")
    assert "node.prot" in done.err
    assert str(config) in done.err


def test_a_missing_configuration_ends_with_2_and_is_named(tmp_path: Path) -> None:
    done = run_process("status", "--config", tmp_path / "none.toml")
    assert done.code == 2
    assert str(tmp_path / "none.toml") in done.err


def test_a_node_that_never_ran_has_no_ledger_and_the_command_says_what_to_do(
    tmp_path: Path,
) -> None:
    with contextlib.chdir(tmp_path):
        for arguments in (("status",), ("exam", "list"), ("job", "retry", "1")):
            done = run(*arguments)
            assert (done.code, done.out) == (1, "")
            assert "no ledger at data/ledger.sqlite" in done.err
    assert list(tmp_path.iterdir()) == []


def test_portuguese_by_option(journey: Journey, files: Path) -> None:
    config = ("--config", journey.node.config)
    said = run("--lang", "pt-BR", "status", *config)
    assert "Nó boneage-node" in said.out
    assert "Desfechos" in said.out
    failed = run("--lang", "pt-BR", "exam", "show", 9999, *config)
    assert "o exame 9999 não existe" in failed.err
    predicted = run("--lang", "pt-BR", "predict", files / "1-hand.dcm")
    assert "idade óssea" in predicted.out
    wrong = run("--lang", "pt-BR", "send", ".", "--to", "pacs")
    assert "não tem a forma" in wrong.err


def test_portuguese_by_the_environment_and_the_option_wins(journey: Journey) -> None:
    portuguese = {"LANG": "pt_BR.UTF-8"}
    arguments = ("status", "--config", journey.node.config)
    assert "Nó boneage-node" in run_process(*arguments, environment=portuguese).out
    english = run_process("--lang", "en", *arguments, environment=portuguese)
    assert "Node boneage-node" in english.out


def test_what_the_terminal_cannot_show_is_escaped(files: Path, tmp_path: Path) -> None:
    """An ASCII terminal, and a file name in another encoding than the system's."""
    odd = tmp_path / os.fsdecode(b"m\xe3o.dcm")
    shutil.copy(files / "1-hand.dcm", odd)
    for encoding in ("ascii", "utf-8:strict"):
        said = run_process(
            "--lang", "pt-BR", "predict", odd, environment={"PYTHONIOENCODING": encoding}
        )
        assert (said.code, said.err) == (0, "")
        assert "idade " in said.out
    found = run_process("predict", odd, "--json", environment={"PYTHONIOENCODING": "ascii"})
    assert found.document["path"] == str(odd)


def test_commands_that_need_no_ledger_leave_nothing_behind(files: Path, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        assert run("predict", files / "1-hand.dcm").code == 0
        assert "data" in run("doctor").out
        assert run("echo", "--to", f"127.0.0.1:{free_port()}/PACS").code == 1
    assert list(tmp_path.iterdir()) == []
