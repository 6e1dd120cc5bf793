"""1,000 associations, at once and one after the other: the rest is told to come back, others are
served meanwhile, and nothing is left afterwards."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.pdus import RELEASE, RELEASED, association_request
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import association_rejection, dcmtk, wait_until
from tests.peers.held import held
from tests.peers.invariants import check_fates, check_rest
from tests.peers.node import Node, running_node, write_config

COUNT = 1000
LIMIT, LIMIT_OF_PEER = 20, 8
BUSY = association_rejection(2, 3, 2)
"""Rejected transient, service provider (presentation), local limit exceeded (PS3.8 9.3.4)."""
STRANGE = association_rejection(1, 1, 3)
"""Rejected permanent, service user, calling AE title not recognised."""
INSTITUTIONS = """
[receive]
require_known_sender = true
max_associations = 20
max_associations_per_peer = 8
[[institutions]]
id = "crowd"
name = "Crowd"
calling_ae_titles = ["CROWD"]
[[institutions]]
id = "listed"
name = "Listed"
calling_ae_titles = ["LISTED"]
networks = ["127.0.0.1/32"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two institutions, and no place for strangers."""
    folder = tmp_path_factory.mktemp("associations") / "node"
    write_config(folder, [], extra=INSTITUTIONS)
    with running_node(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(node: Node) -> Iterator[None]:
    """Neither thread nor descriptor, once those who came have gone."""
    before = held(node)
    yield
    node.wait_until_idle(60)

    def as_before() -> bool:
        now = held(node)
        return (now.threads, now.descriptors) <= (before.threads + 4, before.descriptors + 8)

    wait_until(as_before, seconds=60)
    check_rest(node, restarts=0)


@contextmanager
def crowd(
    node: Node, ae_title: str, source: Callable[[int], str]
) -> Iterator[tuple[list[socket.socket], Counter[bytes]]]:
    """``COUNT`` requests at once, each from the address that ``source`` names; yields who was
    admitted, and how often each rejection came."""
    said = association_request(ae_title)
    with contextlib.ExitStack() as stack:
        everybody = []
        for number in range(COUNT):
            peer = stack.enter_context(socket.socket())
            peer.bind((source(number), 0))
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", node.note["port"]))
            everybody.append(peer)
        yield answers(everybody, said)


def answers(
    everybody: list[socket.socket], said: bytes
) -> tuple[list[socket.socket], Counter[bytes]]:
    """Have all of them speak as soon as they are connected; wait for every answer."""
    waiting = selectors.DefaultSelector()
    for peer in everybody:
        waiting.register(peer, selectors.EVENT_WRITE, peer)
    admitted, rejected, deadline = [], Counter[bytes](), time.monotonic() + 120
    while waiting.get_map() and time.monotonic() < deadline:
        for key, events in waiting.select(1):
            peer = key.data
            if events & selectors.EVENT_WRITE:
                with contextlib.suppress(OSError):  # it was answered before it spoke
                    peer.send(said)
                waiting.modify(peer, selectors.EVENT_READ, peer)
                continue
            waiting.unregister(peer)
            answer = read(peer)
            if answer[:1] == b"\x02":
                admitted.append(peer)
            else:
                rejected[answer] += 1
    assert not waiting.get_map(), "somebody got no answer"
    return admitted, rejected


def read(peer: socket.socket) -> bytes:
    """What has arrived; a reset is no answer."""
    try:
        return peer.recv(4096)
    except ConnectionResetError:
        return b"reset"


def address(number: int) -> str:
    """One of 1,000 addresses of this machine."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def is_served(node: Node, path: Path) -> bool:
    """Whether a listed sender gets an image stored now."""
    options = ("-v", "-ta", 10, "-aet", "LISTED", "-aec", "BONEAGE", "127.0.0.1")
    return "Received Store Response (Success)" in dcmtk(
        "storescu", *options, node.note["port"], path
    )


def test_a_thousand_strangers_at_once_take_no_place_from_a_listed_sender(
    node: Node, tmp_path: Path
) -> None:
    [image] = radiograph_files(tmp_path, 1, first=1)
    with crowd(node, "STRANGER", address) as (admitted, rejected):
        assert admitted == []
        assert set(rejected) <= {BUSY, STRANGE}, "told to come back, or not to"
        assert rejected.total() == COUNT
        assert is_served(node, image)
    node.wait_until_idle(60)
    check_fates(node, [image], Counter())


def test_a_thousand_associations_of_one_sender_get_its_share_of_places(
    node: Node, tmp_path: Path
) -> None:
    [image] = radiograph_files(tmp_path, 1, first=2)
    with crowd(node, "CROWD", lambda _: "127.1.0.1") as (admitted, rejected):
        assert len(admitted) == LIMIT_OF_PEER
        assert rejected == {BUSY: COUNT - LIMIT_OF_PEER}
        assert is_served(node, image), "the other places are free"


def test_a_thousand_senders_at_once_fill_the_node_and_go_again(node: Node, tmp_path: Path) -> None:
    [image] = radiograph_files(tmp_path, 1, first=3)
    with crowd(node, "CROWD", address) as (admitted, rejected):
        assert len(admitted) == LIMIT
        assert rejected == {BUSY: COUNT - LIMIT}
        assert not is_served(node, image), "a customer's thousand machines can fill it"
        admitted[0].setblocking(True)
        admitted[0].sendall(RELEASE)
        assert admitted[0].recv(10) == RELEASED
        wait_until(lambda: is_served(node, image), seconds=30)


def test_a_thousand_associations_one_after_the_other(node: Node) -> None:
    said, port = association_request("CROWD"), node.note["port"]
    answered = Counter[int]()
    for number in range(COUNT):
        with socket.create_connection(
            ("127.0.0.1", port), timeout=20, source_address=(address(number), 0)
        ) as peer:
            peer.sendall(said)
            answered[peer.recv(4096)[0]] += 1
            if number % 3 == 0:
                continue  # gone without a word
            peer.sendall(RELEASE)
            assert peer.recv(10) == RELEASED
    assert answered == {0x02: COUNT}
