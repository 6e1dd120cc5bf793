"""Log lines hold what the table allows and nothing that could quote a patient."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import logs

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "ZZCANARY^PATIENT"
LINE_KEYS = {"at", "level", "event", "process", "pid"}


def lines_of(code: str) -> list[dict[str, object]]:
    """Run code in a process that has configured its logging; its standard error as JSON lines."""
    program = f"from dicom_node.logs import configure_logging, log\nconfigure_logging('t')\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def log_calls() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Where, event name and field names of every call of ``log`` in the node's own code."""
    for path in sorted((REPOSITORY / "dicom_node").rglob("*.py")):
        where = str(path.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "log":
                names = [branch.value for branch in _literals(node.args[0])]
                fields = tuple(word.arg for word in node.keywords if word.arg)
                yield from ((f"{where}:{node.lineno}", str(name), fields) for name in names)


def _literals(node: ast.expr) -> list[ast.Constant]:
    if isinstance(node, ast.IfExp):
        return [*_literals(node.body), *_literals(node.orelse)]
    return [node] if isinstance(node, ast.Constant) else []


def test_a_line_is_one_json_object_with_time_level_process_and_fields() -> None:
    (line,) = lines_of("log('instance_stored', exam_id=7, bytes=10, seconds=0.123456)")
    assert line["event"] == "instance_stored"
    assert line["level"] == "info"
    assert line["process"] == "t"
    assert isinstance(line["pid"], int)
    assert str(line["at"]).endswith("Z")
    assert (line["exam_id"], line["bytes"], line["seconds"]) == (7, 10, 0.1235)
    assert list(line)[:3] == ["at", "level", "event"]


def test_the_supervisor_can_write_about_another_process() -> None:
    (line,) = lines_of("log('process_exited', process='worker-1', pid=99, exit_code=-9)")
    assert (line["process"], line["pid"], line["exit_code"]) == ("worker-1", 99, -9)


def test_an_unknown_field_is_dropped_and_the_node_goes_on() -> None:
    (line,) = lines_of(f"log('node_started', patient_name={CANARY!r}, port=1)")
    assert set(line) == {*LINE_KEYS, "port"}


def test_an_unknown_event_is_reported_without_its_text() -> None:
    (line,) = lines_of(f"log({CANARY!r}, port=1)")
    assert line["event"] == "unknown_event"
    assert set(line) == LINE_KEYS


@pytest.mark.parametrize(
    ("event", "fields"), [("no_such_event", {}), ("node_started", {"patient_name": "x"})]
)
def test_before_configuration_a_name_outside_the_table_is_an_error(
    event: str, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_writer", None)
    with pytest.raises(ValueError, match="not in the table"):
        logs.log(event, **fields)


def test_before_configuration_nothing_is_written(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_writer", None)
    logs.log("node_started", port=1)
    assert capfd.readouterr() == ("", "")


def test_control_characters_cannot_forge_a_line() -> None:
    (line,) = lines_of("log('exam_ignored', reason='a\\nb\\x1b[2J\\u202e' + 'c' * 999)")
    reason = str(line["reason"])
    assert reason.startswith("a\\nb\\x1b[2J\\u202ec")
    assert len(reason) < 250


def test_an_exception_becomes_its_class_and_place_never_its_text() -> None:
    code = f"""
from dicom_node.domain.job import next_state
try:
    next_state({CANARY!r}, None)
except Exception as error:
    log('unexpected_error', error=error)
"""
    (line,) = lines_of(code)
    assert str(line["error"]).startswith("ForbiddenTransition at dicom_node.domain.job:")
    assert CANARY not in json.dumps(line)


def test_a_value_that_is_no_plain_one_becomes_its_type() -> None:
    (line,) = lines_of(f"log('exam_ignored', reason={{'name': {CANARY!r}}})")
    assert line["reason"] == "dict"


def test_a_status_is_written_as_the_standard_writes_it() -> None:
    (line,) = lines_of("log('delivery_failed', status=0xA700, fault=None)")
    assert line["status"] == "0xA700"
    assert "fault" not in line


def test_libraries_are_reduced_to_name_and_level() -> None:
    code = f"""
import logging, pynetdicom, pydicom, alembic, apscheduler
for name in ("pynetdicom.acse", "pydicom", "alembic.runtime", "apscheduler.executors"):
    logging.getLogger(name).info({CANARY!r})
    logging.getLogger(name).error({CANARY!r})
"""
    lines = lines_of(code)
    assert [line["library"] for line in lines] == [
        "pynetdicom.acse",
        "pydicom",
        "alembic.runtime",
        "apscheduler.executors",
    ]
    assert {line["library_level"] for line in lines} == {"error"}
    assert CANARY not in json.dumps(lines)


def test_a_warning_of_pydicom_about_a_value_is_not_quoted() -> None:
    code = f"""
import pydicom
dataset = pydicom.Dataset()
dataset.add_new(0x00100030, "DA", {CANARY!r})
"""
    lines = lines_of(code)
    assert {line["library"] for line in lines} == {"pydicom", "py.warnings"}
    assert CANARY not in json.dumps(lines)


def test_uncaught_errors_of_any_thread_are_reduced_too() -> None:
    code = f"""
import threading
def fail():
    raise ValueError({CANARY!r})
class Fails:
    def __del__(self):
        fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
leaving = threading.Thread(target=exit)
leaving.start()
leaving.join()
Fails()
fail()
"""
    lines = lines_of(code)
    assert [line["event"] for line in lines] == ["unexpected_error"] * 3
    assert [str(line["error"]).partition(" ")[0] for line in lines] == ["ValueError"] * 3
    assert CANARY not in json.dumps(lines)


def test_a_closed_standard_error_does_not_stop_the_node() -> None:
    code = "import sys; sys.stderr.close(); log('node_started', port=1); raise SystemExit(7)"
    program = f"from dicom_node.logs import configure_logging, log\nconfigure_logging('t')\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 7


def test_a_terminal_gets_readable_columns() -> None:
    program = "from dicom_node.logs import configure_logging, log\nconfigure_logging('t')\n"
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as terminal:
        subprocess.run(
            [sys.executable, "-c", program + "log('node_started', port=11112)"],
            cwd=REPOSITORY,
            stderr=theirs,
            timeout=60,
            check=True,
        )
        text = os.read(terminal.fileno(), 4096).decode()
        os.close(theirs)
    assert "node_started" in text
    assert not text.startswith("{")


def test_every_call_names_an_event_and_fields_of_the_table() -> None:
    calls = list(log_calls())
    wrong = [
        (where, event, sorted(set(fields) - set(logs.EVENTS[event].fields)))
        for where, event, fields in calls
        if event in logs.EVENTS and not set(fields) <= set(logs.EVENTS[event].fields)
    ]
    assert calls
    assert wrong == []
    assert [(where, event) for where, event, _ in calls if event not in logs.EVENTS] == []


def test_every_event_of_the_table_is_written_somewhere() -> None:
    assert set(logs.EVENTS) - {event for _, event, _ in log_calls()} - {"unknown_event"} == set()


def test_every_field_of_the_table_belongs_to_an_event() -> None:
    assert {name for event in logs.EVENTS.values() for name in event.fields} == set(logs.FIELDS)
