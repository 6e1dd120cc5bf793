"""Log lines: constant event names with identifiers from one table, never a header value or patient.

One JSON object per line on standard error; columns where standard error is a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import structlog

Level = Literal["info", "warning", "error"]
_OUR_PACKAGES = ("dicom_node", "inference", "sr_templates")
_MAX_TEXT = 200
_FIRST = ("at", "level", "event", "process", "pid")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One kind of log line: the fields it may carry and what it says."""

    level: Level
    fields: tuple[str, ...]
    meaning: str


FIELDS: Mapping[str, str] = {
    "ae_title": "calling AE title of a configured institution, otherwise `unknown`",
    "attempt": "how often the job has been claimed",
    "bytes": "size in bytes",
    "count": "how many",
    "destination": "configured name of a destination",
    "device": "what the model runs on",
    "error": "class of an exception and the line of the node's code that it passed last",
    "exam_id": "the exam's number in the ledger",
    "exit_code": "exit status of a process; negative: ended by that signal",
    "failed": "how many were not",
    "fault": "code of [a fault](reasons.md#faults)",
    "institution": "configured id of an institution",
    "job_id": "the job's number in the ledger",
    "library": "name of the library's logger",
    "library_level": "level that the library gave its message",
    "model": "name of the model",
    "peer": "IP address of the peer",
    "pid": "process id of `process`",
    "port": "TCP port",
    "process": "the process that the line is about: the one that writes it, or a child's name",
    "proof": "what closes a delivery: `status`, `commitment` or `query`",
    "quarantined": "files of the quarantine",
    "reason": "code of [a reason](reasons.md#reasons) or of a rejection",
    "receipt": "`new`, `duplicate` or `conflict`",
    "reports": "exams whose reports went, or report objects",
    "seconds": "duration or delay in seconds",
    "sha256": "SHA-256 of the model's weights, or of a file in the quarantine",
    "stage": "`screen`, `infer`, `report`, `deliver` or `confirm`",
    "status": "status of the C-STORE response, as `0xA700`",
    "version": "version of the node, the model or the ledger's schema",
}
"""Every field that a line may carry. All lines have ``at`` (UTC), ``level``, ``event``, ``process``
and ``pid``."""

_JOB = ("exam_id", "job_id", "stage", "attempt", "destination")


def _event(level: Level, meaning: str, *fields: str) -> Event:
    return Event(level=level, fields=fields, meaning=meaning)


EVENTS: Mapping[str, Event] = {
    "node_started": _event("info", "the node receives", "version", "port", "seconds"),
    "node_stopped": _event("info", "all processes have ended", "exit_code"),
    "process_started": _event("info", "a process runs", "process", "pid"),
    "process_not_started": _event(
        "error", "the system could not start a process; it is tried again", "process", "error"
    ),
    "process_exited": _event("warning", "a process ended", "process", "pid", "exit_code"),
    "process_restarted": _event(
        "warning", "a process that ended runs again, for the `count`th time", "process", "count"
    ),
    "process_killed": _event(
        "error", "a process did not stop in its time and was killed", "process", "pid"
    ),
    "process_silent": _event(
        "error", "a process gave no sign of life for `seconds` and was killed",
        "process", "pid", "seconds",
    ),
    "process_orphaned": _event(
        "error", "the supervisor is gone and the process ends with work in hand"
    ),
    "drain_started": _event("info", "no new work; what is open is finished"),
    "drain_finished": _event(
        "info", "open work is finished; `count`: associations that were cut", "count"
    ),
    "ledger_migrated": _event("info", "the ledger has its current schema", "version"),
    "clock_stepped_back": _event(
        "warning", "jobs that waited for a time far ahead were made due", "count"
    ),
    "ledger_unavailable": _event(
        "error", "the ledger cannot commit; the worker waits and tries again", "fault", "error"
    ),
    "orphan_entered": _event("warning", "objects in the spool without a row got one", "count"),
    "model_loaded": _event(
        "info", "the model is ready", "model", "version", "sha256", "device", "seconds"
    ),
    "gpu_lost": _event(
        "error", "the GPU failed or is missing: the CPU runs the model until it answers again"
    ),
    "gpu_returned": _event("info", "the GPU answers and runs the model again"),
    "gpu_memory_short": _event(
        "warning", "a batch did not fit the GPU's memory: it runs in halves, at last on the CPU"
    ),
    "gpu_output_wrong": _event(
        "warning", "the GPU's output was no number: the CPU runs that batch"
    ),
    "model_changed": _event(
        "error", "a file of the model is not what it was at the start", "error"
    ),
    "storage_failed": _event(
        "error", "an fsync failed: nothing is received any more until a restart", "error"
    ),
    "certificates_not_renewed": _event(
        "error", "changed files of [tls] cannot be used; those from before go on", "error"
    ),
    "fast_path_off": _event(
        "warning",
        "another pynetdicom than the one that receive.fast_path knows: receiving is slower",
        "version",
    ),
    "connection_cut": _event(
        "warning", "a connection broke a limit; said once a minute for a peer", "peer", "reason"
    ),
    "association_accepted": _event(
        "info", "a sender may store", "peer", "ae_title", "institution"
    ),
    "association_rejected": _event(
        "warning", "a peer may not store; said once a minute for a peer and a reason",
        "peer", "ae_title", "institution", "reason",
    ),
    "instance_stored": _event(
        "info", "an object is durable and was acknowledged",
        "exam_id", "institution", "receipt", "bytes", "seconds",
    ),
    "instance_refused": _event(
        "warning", "an object was answered with a failure",
        "peer", "institution", "status", "fault",
    ),
    "object_quarantined": _event(
        "warning", "an object that cannot be understood is kept in the quarantine",
        "sha256", "bytes", "peer", "status", "fault",
    ),
    "quarantine_failed": _event(
        "error", "the disk did not take an object for the quarantine; its answer stays the same",
        "error",
    ),
    "exam_ignored": _event("info", "the object is no hand radiograph", "exam_id", "reason"),
    "exam_not_assessed": _event("info", "a hand without a bone age", "exam_id", "reason"),
    "patient_key_unusable": _event(
        "error", "the exam is reported without earlier ones of its patient", "exam_id", "fault"
    ),
    "exam_assessed": _event("info", "the model gave a bone age", "exam_id", "model"),
    "report_built": _event("info", "the report's objects are encoded and kept", "exam_id", "count"),
    "picture_not_drawn": _event(
        "error", "the picture and the page of a report could not be drawn", "error"
    ),
    "picture_missing": _event(
        "error", "a report goes without its picture and its page", "exam_id"
    ),
    "delivery_stored": _event(
        "info", "a destination has a report object", "exam_id", "job_id", "destination", "status"
    ),
    "delivery_not_taken": _event(
        "info", "a destination stores no SOP class that the object can be sent as",
        "exam_id", "job_id", "destination", "status",
    ),
    "delivery_confirmed": _event(
        "info", "a destination keeps what it said it stored",
        "exam_id", "job_id", "destination", "proof",
    ),
    "delivery_lost": _event(
        "error", "a destination lost what it said it stored: it is sent again",
        "exam_id", "job_id", "destination", "count",
    ),
    "commitment_requested": _event(
        "info", "a sender asked the node to commit to objects", "institution", "count"
    ),
    "commitment_told": _event(
        "info", "a sender was told which objects the node keeps", "count", "failed"
    ),
    "commitment_not_told": _event(
        "warning", "a sender did not take the result of its request for commitment",
        "attempt", "fault", "error",
    ),
    "central_silent": _event(
        "warning", "the centre does not answer or does not let the node in; exams wait for it",
        "fault", "error",
    ),
    "central_returned": _event("info", "the centre takes what it is told again"),
    "centre_lost_batches": _event(
        "warning", "the centre lacks exams that it had: they are sent again", "count"
    ),
    "purged": _event(
        "info", "images whose time was over are gone, and other exams' reports and refused files",
        "count", "reports", "quarantined",
    ),
    "purge_failed": _event("error", "the purge stopped; it is tried again", "fault", "error"),
    "archived": _event("info", "images and report objects are in the archive", "count", "reports"),
    "image_not_archived": _event(
        "error", "an image cannot be read and is not in the archive", "exam_id", "error"
    ),
    "archive_silent": _event(
        "warning", "the archive does not answer or does not let the node in; objects wait for it",
        "fault", "error",
    ),
    "archive_returned": _event("info", "the archive takes objects again"),
    "exams_forwarded": _event("info", "the centre has these exams now", "count"),
    "exam_not_forwarded": _event(
        "error", "the centre does not take what is said of an exam", "exam_id", "error"
    ),
    "destination_silent": _event(
        "warning", "five deliveries in a row got no answer: the destination is only probed",
        "destination",
    ),
    "destination_returned": _event(
        "info", "a silent destination answers; `count`: deliveries that waited are due now",
        "destination", "count",
    ),
    "delivery_failed": _event(
        "warning", "a destination did not take a report object",
        "exam_id", "job_id", "destination", "status",
    ),
    "job_done": _event("info", "a stage is finished", *_JOB, "seconds"),
    "job_retry": _event(
        "warning", "a stage failed and is tried again after `seconds`",
        *_JOB, "fault", "error", "seconds",
    ),
    "job_parked": _event("error", "a person must look at a job", *_JOB, "fault", "error"),
    "lease_lost": _event("warning", "another worker owns the job now", *_JOB),
    "audit_failed": _event(
        "error", "a message of the audit trail could not be recorded and is lost", "error"
    ),
    "audit_waits": _event(
        "error", "messages of the audit trail wait: the file or the repository takes none", "error"
    ),
    "audit_goes_on": _event("info", "what waited of the audit trail was taken"),
    "unexpected_error": _event("error", "an error that nothing handles", "error"),
    "library_message": _event(
        "warning", "a library warned; its text may quote values and is not written",
        "library", "library_level",
    ),
    "unknown_event": _event("error", "the code used an event that is not in this table"),
}  # fmt: skip

_writer: Any = None


def configure_logging(process: str) -> None:
    """Send this process's lines to standard error, and everything that could quote values with
    them: the libraries' own logging, warnings and uncaught exceptions, reduced to names."""
    global _writer  # noqa: PLW0603 - logging is one per process
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            _reduce,
            _renderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _writer = structlog.get_logger().bind(process=process, pid=os.getpid())
    _route_libraries()
    _route_uncaught()


def log(event: str, **fields: object) -> None:
    """Write one line. An exception becomes its class and place, ``status`` hexadecimal.

    A running node never fails because of a line: what is not in the tables is left out. Before
    :func:`configure_logging`, as in tests, nothing is written and a wrong name is a ``ValueError``.
    """
    entry = EVENTS.get(event)
    wrong = sorted(set(fields) - set(entry.fields)) if entry else ["event"]
    if _writer is None:
        if wrong:
            raise ValueError(f"log line {event!r} is not in the table of events: {wrong}")
        return
    known = {name: fields[name] for name in fields if name not in wrong} if entry else {}
    level = entry.level if entry else "error"
    with contextlib.suppress(OSError, ValueError):  # standard error is closed or full
        getattr(_writer, level)(event if entry else "unknown_event", **known)


def _renderer() -> Any:
    return (
        structlog.dev.ConsoleRenderer(pad_event_to=24, timestamp_key="at")
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )


def _reduce(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: every value becomes a plain one; time, level and event come first."""
    ordered = {name: entry[name] for name in _FIRST} | dict(entry)
    return {name: _plain(name, value) for name, value in ordered.items() if value is not None}


def _plain(name: str, value: object) -> str | int | float:
    if isinstance(value, BaseException):
        return f"{type(value).__name__} at {_place(value.__traceback__)}"
    if name == "status" and isinstance(value, int):
        return f"0x{value:04X}"
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, str):
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value[:_MAX_TEXT])
    return value if isinstance(value, int) else type(value).__name__


def _place(trace: TracebackType | None) -> str:
    """Module and line of the last frame in the node's own code; otherwise of the last frame."""
    places = [
        (str(frame.f_globals.get("__name__", "")), line) for frame, line in traceback.walk_tb(trace)
    ]
    ours = [place for place in places if place[0].partition(".")[0] in _OUR_PACKAGES]
    return "{}:{}".format(*(ours or places or [("unknown", 0)])[-1])


class _LibraryHandler(logging.Handler):
    """Turns a library's record into its logger's name and level."""

    def emit(self, record: logging.LogRecord) -> None:
        log("library_message", library=record.name, library_level=record.levelname.lower())


def _route_libraries() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(logging.WARNING)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _route_uncaught() -> None:
    sys.excepthook = lambda _kind, error, _trace: _log_uncaught(error)
    threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_value)
    sys.unraisablehook = lambda uncaught: _log_uncaught(uncaught.exc_value)


def _log_uncaught(error: BaseException | None) -> None:
    if not isinstance(error, SystemExit):  # how a thread ends itself
        log("unexpected_error", error=error)
