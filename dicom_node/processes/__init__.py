"""What each process of the node is: receiver, worker or delivery. Started by `node.py`.

Each role's work stands in a module of its own, which only its processes load.
"""

from __future__ import annotations

import gc
import importlib
import select
import signal
import threading
from dataclasses import asdict, dataclass
from enum import StrEnum

from dicom_node.logs import configure_logging
from dicom_node.settings import Settings
from dicom_node.stopping import end_as_orphan, stop_event

RECEIVER_GRACE_SECONDS = 60.0
WORKER_GRACE_SECONDS = 60.0
DELIVERY_GRACE_SECONDS = 90.0
_LOOK_MS = 100


class Role(StrEnum):
    """What a process does; also the name of its module."""

    RECEIVER = "receiver"
    WORKER = "worker"
    DELIVERY = "delivery"


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """File descriptors that the supervisor hands to its processes."""

    listening: int
    listening_tls: int
    """-1: no secure port."""
    work_bell: int
    delivery_bell: int
    lifeline: int
    """Read end of a pipe that closes when the supervisor dies, however it dies."""
    lock: int
    """Holds the data folder's lock for as long as any process of the node lives."""
    prepared: int
    """An eventfd that is set once the data folder is what the processes expect; never reset."""
    pulse: int = -1
    """Where this process shows that it lives."""

    def numbers(self) -> tuple[int, ...]:
        """All of them, in order."""
        return tuple(asdict(self).values())

    def descriptors(self) -> tuple[int, ...]:
        """Those that are open."""
        return tuple(number for number in self.numbers() if number >= 0)


def run_process(settings: Settings, role: Role, name: str, inherited: Inherited) -> None:
    """Run one process until SIGTERM or until the supervisor is gone.

    Its libraries are loaded while the supervisor still prepares the data folder.
    """
    gc.disable()  # until all is loaded, which makes objects and hardly garbage
    configure_logging(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    stop = stop_event(signal.SIGTERM, lifeline=inherited.lifeline)
    end_as_orphan(inherited.lifeline)
    work = importlib.import_module(f"{__name__}.{role.value}")
    if _is_prepared(inherited.prepared, stop):
        work.run(settings, name, inherited, stop)


def _is_prepared(prepared: int, stop: threading.Event) -> bool:
    """Whether the data folder became ready before this process was to stop."""
    poll = select.poll()
    poll.register(prepared, select.POLLIN)
    while not stop.is_set():
        if poll.poll(_LOOK_MS):
            return True
    return False
