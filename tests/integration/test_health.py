"""The health server answers probes over real HTTP and says which check fails."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping

import pytest

from dicom_node import health
from dicom_node.health import Check, HealthServer

Serve = Callable[..., HealthServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts health servers on free ports and stops them afterwards."""
    servers: list[HealthServer] = []

    def start(
        checks: Mapping[str, Check] | None = None,
        live: Check = lambda: None,
        metrics: Callable[[], bytes] = lambda: b"up 1\n",
        bind: str = "127.0.0.1",
    ) -> HealthServer:
        server = HealthServer(port=0, bind=bind, checks=checks or {}, live=live, metrics=metrics)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def ask(
    server: HealthServer, path: str, *, method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    request = urllib.request.Request(f"http://{host}:{server.bound_port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_a_node_that_is_well_is_live_and_ready(serve: Serve) -> None:
    server = serve(checks={"disk": lambda: None, "model": lambda: None})
    assert ask(server, "/livez")[0] == 200
    status, content_type, body = ask(server, "/readyz")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "checks": {"disk": "ok", "model": "ok"}}


def test_readiness_says_which_check_fails_while_the_node_stays_live(serve: Serve) -> None:
    server = serve(checks={"disk": lambda: "97 % used", "model": lambda: None})
    status, _, body = ask(server, "/readyz")
    assert status == 503
    assert json.loads(body) == {
        "status": "failing",
        "checks": {"disk": "97 % used", "model": "ok"},
    }
    assert ask(server, "/livez")[0] == 200


def test_checks_are_asked_every_time(serve: Serve) -> None:
    answers: Iterator[str | None] = iter(["draining", None])
    server = serve(checks={"drain": lambda: next(answers)})
    assert [ask(server, "/readyz")[0] for _ in range(2)] == [503, 200]


def test_a_node_that_does_not_turn_is_not_live(serve: Serve) -> None:
    status, _, body = ask(serve(live=lambda: "the supervisor stands still for 30 s"), "/livez")
    assert status == 503
    assert json.loads(body)["checks"] == {"live": "the supervisor stands still for 30 s"}


def test_a_check_that_breaks_is_a_failing_check_without_its_text(serve: Serve) -> None:
    def broken() -> str | None:
        raise ValueError("ZZCANARY")

    status, _, body = ask(serve(checks={"ledger": broken}), "/readyz")
    assert status == 503
    assert b"ValueError" in body
    assert b"ZZCANARY" not in body


def test_metrics_are_served_as_prometheus_text(serve: Serve) -> None:
    status, content_type, body = ask(serve(metrics=lambda: b"a_total 7\n"), "/metrics")
    assert (status, body) == (200, b"a_total 7\n")
    assert content_type.startswith("text/plain; version=0.0.4")


def test_metrics_that_fail_are_a_failed_scrape_and_the_server_goes_on(serve: Serve) -> None:
    def broken() -> bytes:
        raise RuntimeError("ZZCANARY")

    server = serve(metrics=broken)
    status, _, body = ask(server, "/metrics")
    assert status == 500
    assert b"RuntimeError" in body
    assert b"ZZCANARY" not in body
    assert ask(server, "/livez")[0] == 200


def test_anything_else_is_not_found(serve: Serve) -> None:
    server = serve()
    for path in ("/", "/livez/x", "/../etc/passwd"):
        status, content_type, _ = ask(server, path)
        assert (status, content_type) == (404, "application/json")


def test_a_query_does_not_change_the_answer(serve: Serve) -> None:
    assert ask(serve(), "/livez?verbose")[0] == 200


def test_head_answers_without_a_body(serve: Serve) -> None:
    server = serve(checks={"disk": lambda: "full"})
    assert ask(server, "/livez", method="HEAD")[::2] == (200, b"")
    assert ask(server, "/readyz", method="HEAD")[::2] == (503, b"")


def test_other_methods_are_refused(serve: Serve) -> None:
    assert ask(serve(), "/livez", method="DELETE")[0] == 501


def test_silent_peers_do_not_hold_up_a_probe(serve: Serve) -> None:
    server = serve()
    silent = [socket.create_connection(("127.0.0.1", server.bound_port)) for _ in range(20)]
    try:
        assert ask(server, "/livez")[0] == 200
    finally:
        for peer in silent:
            peer.close()


def test_a_silent_peer_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < health._Handler.timeout <= 30
    monkeypatch.setattr(health._Handler, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", serve().bound_port), timeout=5) as silent:
        assert silent.recv(1) == b""


def test_an_open_connection_does_not_hold_up_the_end_of_the_node(serve: Serve) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.bound_port)):
        assert ask(server, "/livez")[0] == 200  # so the silent one before it has been accepted
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < health._SILENT_PEER_SECONDS / 2


def test_a_peer_that_hangs_up_leaves_no_trace(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(metrics=lambda: b"x" * 50_000_000)
    with socket.create_connection(("127.0.0.1", server.bound_port)) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        peer.recv(1)
    assert ask(server, "/livez")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_it_serves_ipv6(serve: Serve) -> None:
    assert ask(serve(bind="::1"), "/livez", host="[::1]")[0] == 200


def test_a_stopped_server_frees_its_port(serve: Serve) -> None:
    server = serve()
    port = server.bound_port
    assert ask(server, "/livez")[0] == 200
    server.stop()
    again = HealthServer(
        port=port, bind="127.0.0.1", checks={}, live=lambda: None, metrics=lambda: b""
    )
    again.start()
    try:
        assert again.bound_port == port
        assert ask(again, "/livez")[0] == 200
    finally:
        again.stop()


def test_a_port_that_is_taken_is_an_error(serve: Serve) -> None:
    taken = serve().bound_port
    server = HealthServer(
        port=taken, bind="127.0.0.1", checks={}, live=lambda: None, metrics=lambda: b""
    )
    with pytest.raises(OSError, match="in use"):
        server.start()
    with pytest.raises(RuntimeError, match="start"):
        _ = server.bound_port
