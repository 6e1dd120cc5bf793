"""The node's answers to probes and to Prometheus over HTTP: /livez, /readyz and /metrics."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import NodeError

Check = Callable[[], str | None]
"""None when all is well, otherwise what is wrong, without patient data."""

_SILENT_PEER_SECONDS = 10
_JSON = "application/json"
_PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
Answer = tuple[HTTPStatus, str, bytes]


class HealthServer:
    """Serves GET and HEAD from daemon threads.

    /livez: 200 while ``live`` finds nothing, else 503. /readyz: 200 while no check finds anything,
    else 503. Both bodies are JSON: ``{"status": "ok" | "failing", "checks": {name: "ok" | text}}``.
    /metrics: what ``metrics`` returns, in the Prometheus text format; 500 when it fails.
    """

    def __init__(
        self,
        *,
        port: int,
        bind: str,
        checks: Mapping[str, Check],
        live: Check,
        metrics: Callable[[], bytes],
    ) -> None:
        self._address = (bind, port)
        self._routes: dict[str, Callable[[], Answer]] = {
            "/livez": lambda: _verdict({"live": live}),
            "/readyz": lambda: _verdict(checks),
            "/metrics": lambda: _metrics(metrics),
        }
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen. Raises ``OSError`` when the port is taken."""
        self._server = _Server(self._address, self._routes)
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    def stop(self) -> None:
        """Stop listening; answers under way may be cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def bound_port(self) -> int:
        """The port in use; chosen by the system when 0 was asked for. ``RuntimeError`` before
        :meth:`start`."""
        if self._server is None:
            raise RuntimeError("the health server does not listen: call start() first")
        return int(self._server.server_address[1])


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], routes: Mapping[str, Callable[[], Answer]]
    ) -> None:
        self.routes = routes
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that hung up gets no answer; there is nothing to tell anyone."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENT_PEER_SECONDS
    server_version = "dicom-node"
    sys_version = ""

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes:
        """Send status and headers; return the body."""
        routes = self.server.routes
        route = routes.get(self.path.partition("?")[0])
        status, content_type, body = route() if route else _not_found(routes)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Probes are no events."""


def _verdict(checks: Mapping[str, Check]) -> Answer:
    found = {name: _run(check) for name, check in checks.items()}
    failing = any(found.values())
    body = {
        "status": "failing" if failing else "ok",
        "checks": {name: text or "ok" for name, text in found.items()},
    }
    return HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK, _JSON, _encode(body)


def _run(check: Check) -> str | None:
    try:
        return check()
    except NodeError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a check that breaks is a check that fails
        return f"the check itself failed: {type(error).__name__}"


def _metrics(metrics: Callable[[], bytes]) -> Answer:
    try:
        return HTTPStatus.OK, _PROMETHEUS_TEXT, metrics()
    except Exception as error:  # noqa: BLE001 - Prometheus sees a failed scrape, the node goes on
        body = _encode({"error": f"the metrics cannot be read: {type(error).__name__}"})
        return HTTPStatus.INTERNAL_SERVER_ERROR, _JSON, body


def _not_found(routes: Mapping[str, object]) -> Answer:
    return HTTPStatus.NOT_FOUND, _JSON, _encode({"error": f"ask for {', '.join(routes)}"})


def _encode(body: object) -> bytes:
    return json.dumps(body).encode() + b"\n"


ADDRESS_FILE = "node.json"
"""In the run folder: where the node listens."""


def address_of(run: Path) -> dict[str, int]:
    """The note that a running node leaves in its run folder. Raises ``OSError`` when no node has
    run there."""
    return dict(json.loads((run / ADDRESS_FILE).read_text()))


def ask_readiness(run: Path, bind: str) -> dict[str, Any]:
    """The answer to /readyz of the node with this run folder; ``{"status": "not running"}`` without
    one.

    It is asked directly, whatever proxies the environment names.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        port = address_of(run)["metrics_port"]
        try:
            answer = direct.open(f"http://{bind}:{port}/readyz", timeout=3)
        except urllib.error.HTTPError as failing:
            answer = failing  # 503 is an answer as well
        with answer:
            return dict(json.load(answer))
    except (OSError, ValueError):  # nobody answers, or another program does
        return {"status": "not running", "checks": {}}
