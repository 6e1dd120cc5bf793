"""What a running node tells the centre, and how often."""

from __future__ import annotations

import functools

from dicom_node import __version__
from dicom_node.adapters.central.archive import PostgresArchive
from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.central_link import CentralLink
from dicom_node.domain.job import JobState
from dicom_node.domain.record import Heartbeat
from dicom_node.health import ask_readiness
from dicom_node.schedule import Task
from dicom_node.wiring import Wiring

_FORWARD_SECONDS = 5
_HEARTBEAT_SECONDS = 60


def central_tasks(wiring: Wiring) -> tuple[Task, ...]:
    """What the centre is told; nothing without one."""
    if wiring.centre is None:
        return ()
    link = CentralLink(
        forward=wiring.forward(wiring.centre), beat=functools.partial(_beat, wiring, wiring.centre)
    )
    return (
        Task(name="forward", every_seconds=_FORWARD_SECONDS, run=link.forward),
        Task(name="heartbeat", every_seconds=_HEARTBEAT_SECONDS, run=link.beat),
    )


def _beat(wiring: Wiring, centre: PostgresArchive) -> None:
    node = wiring.settings.node
    operator = OperatorLedger(wiring.folders.ledger, wiring.clock)
    try:
        depths = operator.queue_depths()
    finally:
        operator.close()
    parked = sum(count for (_, state), count in depths.items() if state is JobState.PARKED)
    centre.beat(
        Heartbeat(
            region=node.region,
            node=node.name,
            version=__version__,
            at=wiring.clock.now(),
            ready=ask_readiness(wiring.folders.run, node.bind)["status"] == "ok",
            queued=sum(depths.values()) - parked,
            parked=parked,
        )
    )
