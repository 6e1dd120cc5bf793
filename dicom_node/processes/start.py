"""How every process of the node begins."""

from __future__ import annotations

import gc
import os

from dicom_node import metrics
from dicom_node.settings import Settings
from dicom_node.supervisor import leave_note, ready_path
from dicom_node.wiring import Wiring


def begin(settings: Settings, name: str) -> Wiring:
    """The parts of a process, which counts from now on. Raises ``OSError`` when it cannot."""
    wiring = Wiring(settings)
    metrics.activate(wiring.folders.metrics, name)
    return wiring


def all_is_loaded() -> None:
    """Before the first association or job: look for garbage from now on, but never again among what
    is there now. pynetdicom has all objects looked at every six seconds."""
    gc.freeze()
    gc.enable()


def say_ready(wiring: Wiring, name: str) -> None:
    """Tell the supervisor that this process does its work."""
    leave_note(ready_path(wiring.folders.run, name), str(os.getpid()))
