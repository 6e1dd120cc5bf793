"""The worker: screens, estimates and reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicom_node.adapters.bell import EventBell
from dicom_node.domain.job import Job, Stage
from dicom_node.logs import log
from dicom_node.processes import Inherited
from dicom_node.processes.start import all_is_loaded, begin, say_ready
from dicom_node.pulse import Heart
from dicom_node.settings import Settings
from dicom_node.worker import Batch, Worker


def run(settings: Settings, name: str, inherited: Inherited, stop: threading.Event) -> None:
    """Do the jobs of three stages until ``stop`` is set."""
    begun = time.monotonic()
    wiring = begin(settings, name)
    heart = Heart(inherited.pulse)
    wiring.ledger.expire_leases(name)  # first of all: another worker need not wait for the model
    wiring.decoder.start()
    model = wiring.predictor.warm()
    log(
        "model_loaded",
        model=model.name,
        version=model.version,
        sha256=model.sha256,
        device=wiring.predictor.device,
        seconds=time.monotonic() - begun,
    )
    wiring.reporter.warm(wiring.routing.report_kinds)
    delivery_bell = EventBell(inherited.delivery_bell)
    inference = wiring.settings.inference
    batching = "cuda" in {inference.device, wiring.predictor.device}
    worker = Worker(
        ledger=wiring.ledger,
        clock=wiring.clock,
        owner=name,
        bell=EventBell(inherited.work_bell),
        handlers=wiring.work_handlers(),
        infer=wiring.infer(),
        batch=Batch(max=inference.batch_max, wait_seconds=inference.batch_wait_ms / 1000)
        if batching
        else Batch(),
        done=_ring_after(Stage.REPORT, delivery_bell.ring),
    )
    all_is_loaded()
    heart.watch(worker.goes_on)
    say_ready(wiring, name)
    worker.run(stop)


def _ring_after(stage: Stage, ring: Callable[[], None]) -> Callable[[Job], None]:
    def done(job: Job) -> None:
        if job.stage is stage:
            ring()

    return done
