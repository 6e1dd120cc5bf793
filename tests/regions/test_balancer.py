"""HAProxy as `deploy/central` ships it, before a region's pair of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders.radiographs import radiograph_files
from tests.integration.peers import dcmtk, running_storescp, wait_until
from tests.peers.haproxy import BALANCER, CONFIGURATION, needs_haproxy, running_haproxy
from tests.peers.invariants import stored_in
from tests.peers.node import Node, running_node, write_config

pytestmark = [pytest.mark.regions, needs_haproxy]

SUCCESS = "Received Store Response (Success)"


@dataclass(frozen=True)
class Pair:
    """Two nodes with one PACS."""

    a: Node
    b: Node
    pacs: Path

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """As HAProxy gets them."""
        return {
            "NODE_A": (self.a.note["port"], self.a.note["metrics_port"]),
            "NODE_B": (self.b.note["port"], self.b.note["metrics_port"]),
        }


@contextmanager
def running_pair(folder: Path) -> Iterator[Pair]:
    """Nodes that know one sender, from the balancer's address."""
    with ExitStack() as running:
        port = running.enter_context(running_storescp(folder / "pacs"))
        nodes = []
        for name in ("a", "b"):
            write_config(
                folder / name,
                [("pacs", "STORESCP", port)],
                node=f'name = "sp-{name}"',
                extra="[receive]\nrequire_known_sender = true\nmax_associations_per_peer = 20\n"
                '[inference]\nworkers = 1\ndevice = "cpu"\n'
                '[[institutions]]\nid = "clinic"\nname = "Clinic"\n'
                f'calling_ae_titles = ["CLINIC"]\nnetworks = ["{BALANCER}/32"]\n',
            )
            nodes.append(running.enter_context(running_node(folder / name)))
        yield Pair(a=nodes[0], b=nodes[1], pacs=folder / "pacs")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that no test harms."""
    with running_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


def said(port: int, path: Path) -> str:
    """What storescu says of sending a file through the balancer."""
    options = ("-v", "-to", 5, "-ta", 5, "-td", 20, "-aet", "CLINIC", "-aec", "BONEAGE")
    return dcmtk("storescu", *options, "127.0.0.1", port, path)


def exams(node: Node) -> int:
    ledger = node.ledger()
    try:
        return len(ledger.exams(limit=100))
    finally:
        ledger.close()


def test_the_second_node_takes_over(tmp_path: Path) -> None:
    first, second, third = radiograph_files(tmp_path / "sent", 3)
    with running_pair(tmp_path) as pair, running_haproxy(tmp_path, pair.places) as port:
        assert SUCCESS in said(port, first)
        assert (exams(pair.a), exams(pair.b)) == (1, 0)
        pair.a.wait_until_idle(60)
        before = stored_in(pair.pacs)

        pair.a.kill()
        wait_until(lambda: SUCCESS in said(port, second), seconds=30, poll=0.5)
        assert exams(pair.b) == 1
        pair.b.wait_until_idle(60)

        # One that the dead node has acknowledged, too: another ledger, another exam, and objects of
        # the same names that take the place of the first.
        assert SUCCESS in said(port, first)
        assert exams(pair.b) == 2
        pair.b.wait_until_idle(60)
        assert before.keys() <= stored_in(pair.pacs).keys()
        assert len(stored_in(pair.pacs)) == 2 * len(before)
        assert SUCCESS in said(port, third)


def test_the_nodes_see_the_balancers_address(pair: Pair, tmp_path: Path) -> None:
    """And so admit only that one: the same sender is rejected when it comes directly."""
    [path] = radiograph_files(tmp_path, 1, first=10)
    assert "Association Rejected" in said(pair.a.note["port"], path)
    with running_haproxy(tmp_path, pair.places) as port:
        assert SUCCESS in said(port, path)
    ledger = pair.a.ledger()
    [exam_id, *_] = [exam.exam_id for exam in ledger.exams(limit=1)]
    assert ledger.exam(exam_id).instance.peer_address == BALANCER
    ledger.close()


def test_only_the_senders_networks_may_call(pair: Pair, tmp_path: Path) -> None:
    [path] = radiograph_files(tmp_path, 1, first=20)
    known = exams(pair.a)
    senders = "192.0.2.0/24 198.51.100.0/24"
    with running_haproxy(tmp_path, pair.places, senders=senders) as port:
        assert SUCCESS not in said(port, path)
    assert exams(pair.a) == known
    with running_haproxy(tmp_path, pair.places, senders=f"{senders} 127.0.0.0/8") as port:
        assert SUCCESS in said(port, path)


def test_the_proxy_protocol_does_not_tell_the_senders_address(pair: Pair, tmp_path: Path) -> None:
    """The node takes its header for a PDU and closes the connection."""
    [path] = radiograph_files(tmp_path, 1, first=30)
    known = exams(pair.a), exams(pair.b)
    configuration = tmp_path / "haproxy.cfg"
    shipped = CONFIGURATION.read_text(encoding="utf-8")
    configuration.write_text(shipped.replace("default-server", "default-server send-proxy"))
    with running_haproxy(tmp_path, pair.places, configuration=configuration) as port:
        assert SUCCESS not in said(port, path)
    assert (exams(pair.a), exams(pair.b)) == known
