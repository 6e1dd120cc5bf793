"""The map itself, running: a centre with its replica, four regions with node and PACS, a
balancer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.adapters.scu.association import Peer
from tests.integration.peers import wait_until
from tests.peers.haproxy import BALANCER, running_haproxy
from tests.peers.node import Node, begin_node, write_config
from tests.peers.postgres import Postgres, running_postgres, running_standby
from tests.regions.pacs import OrthancPacs, Pacs, StorescpPacs
from tests.regions.plan import REGIONS, Region

READER = "analyst"
"""Role of `dicom-node report`."""
_PACS = "pacs"
START_SECONDS = 240.0
"""Four nodes start at once, on whatever cores there are."""


@dataclass
class Site:
    """A region's node and PACS. ``balancer``: the port of HAProxy, where there is one; ``cut``:
    what is away now."""

    region: Region
    folder: Path
    pacs: Pacs
    node: Node
    balancer: int | None = None
    cut: str = ""

    @property
    def address(self) -> Peer:
        """Where senders call."""
        if self.balancer is None:
            return self.node.peer
        return Peer(host="127.0.0.1", port=self.balancer, ae_title="BONEAGE")

    def kill_node(self) -> None:
        """SIGKILL for every process of the node."""
        self.node.kill()
        wait_until(lambda: self.node.survivors() == [])

    def start_node(self) -> None:
        """Start the node again on its data folder; it has other ports then."""
        self.node = begin_node(self.folder)
        self.node.wait_until_ready(START_SECONDS)


@dataclass
class World:
    """All of it."""

    primary: Postgres
    replica: Postgres
    sites: dict[str, Site] = field(default_factory=dict)

    def address(self, region: str) -> Peer:
        """Where the senders of a region call."""
        return self.sites[region].address


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """Start everything below ``folder`` and wait until every node is ready; stop it at the end."""
    with ExitStack() as running:
        primary = running.enter_context(running_postgres(folder / "primary"))
        _prepare_centre(primary)
        replica = running.enter_context(running_standby(primary, folder / "replica"))
        world = World(primary=primary, replica=replica)
        for region in REGIONS:
            world.sites[region.name] = _begin_site(running, folder, region, primary, replica)
        for site in world.sites.values():
            site.node.wait_until_ready(START_SECONDS)
        for site in world.sites.values():
            if site.region.balanced:
                site.balancer = running.enter_context(_balancer(site))
        try:
            yield world
        finally:
            for site in world.sites.values():
                site.node.process.terminate()  # all at once; each is waited for below


def _prepare_centre(primary: Postgres) -> None:
    """The schema by the node's own command, then a role for each node and one for reports."""
    url = _url(primary, "owner")
    command = [sys.executable, "-m", "dicom_node", "central", "migrate", "--url", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for region in REGIONS:
        role = _role(region)
        primary.sql(f"CREATE ROLE {role} LOGIN")
        primary.sql(f"SELECT admit_node('{role}', '{region.name}', '{region.node}')")
    primary.sql(f"CREATE ROLE {READER} LOGIN IN ROLE bone_age_reporting")


def _begin_site(
    running: ExitStack, folder: Path, region: Region, primary: Postgres, replica: Postgres
) -> Site:
    home = folder / region.name
    pacs: Pacs = (OrthancPacs if region.pacs == "Orthanc" else StorescpPacs)(home / _PACS)
    home.mkdir(parents=True)
    pacs.start()
    running.callback(pacs.stop)
    write_config(
        home / "node",
        [(_PACS, pacs.ae_title, pacs.port)],
        node=f'name = "{region.node}"\nregion = "{region.name}"',
        extra=_configuration(region, primary, replica),
    )
    site = Site(region=region, folder=home / "node", pacs=pacs, node=begin_node(home / "node"))
    running.callback(_stop, site)
    return site


def _stop(site: Site) -> None:
    """Drain; a node that was killed is gone already."""
    if site.node.process.poll() is None:
        site.node.stop()


def _configuration(region: Region, primary: Postgres, replica: Postgres) -> str:
    network = f"{BALANCER if region.balanced else '127.0.0.1'}/32"
    lines = [
        "[receive]",
        "require_known_sender = true",
        "max_associations_per_peer = 20",
        "[inference]",
        'device = "cpu"',
        "workers = 1",
        "batch_max = 2",
        "[central]",
        f"url = {json.dumps(_url(primary, _role(region)))}",
        f"read_url = {json.dumps(_url(replica, READER))}",
    ]
    for institution in region.institutions:
        lines += [
            "[[institutions]]",
            f'id = "{institution.institution_id}"',
            f'name = "{institution.institution_id}"',
            f'calling_ae_titles = ["{institution.ae_title}"]',
            f'networks = ["{network}"]',
        ]
    return "\n".join(lines)


@contextmanager
def _balancer(site: Site) -> Iterator[int]:
    """HAProxy with this node alone: the place of the second one is empty."""
    here = (site.node.note["port"], site.node.note["metrics_port"])
    with running_haproxy(site.folder, {"NODE_A": here, "NODE_B": (1, 1)}) as port:
        yield port


def _role(region: Region) -> str:
    return f"node_{region.name.lower()}"


def _url(server: Postgres, role: str) -> str:
    """As a person writes it."""
    return server.url(role).replace("+psycopg2", "")
