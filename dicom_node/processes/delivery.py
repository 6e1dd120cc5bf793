"""The delivery: a lane for each destination, and what is to be done from time to time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dicom_node import metrics
from dicom_node.adapters.bell import EventBell
from dicom_node.audit import audited_model
from dicom_node.central_tasks import central_tasks
from dicom_node.domain.commitment import Proof
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.job import TO_DESTINATIONS, Job, Stage
from dicom_node.domain.retry import Park
from dicom_node.housekeeping import housekeeping_tasks
from dicom_node.logs import log
from dicom_node.processes import Inherited
from dicom_node.processes.start import all_is_loaded, begin, say_ready
from dicom_node.pulse import Heart
from dicom_node.schedule import Schedule, Task
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.wiring import Wiring
from dicom_node.worker import LEASE_SECONDS, Handler, Worker

_MODEL_CHECK_SECONDS = 3600
_CLOCK_CHECK_SECONDS = 60
_DESTINATION_CHECK_SECONDS = 60
_COMMITMENT_SECONDS = 5


def run(settings: Settings, name: str, inherited: Inherited, stop: threading.Event) -> None:
    """Lanes, each a thread, per destination: a destination that hangs holds up no other."""
    wiring = begin(settings, name)
    heart = Heart(inherited.pulse)
    _park_unknown_destinations(wiring, name)
    lanes = [lane for item in wiring.settings.destinations for lane in _lanes(wiring, name, item)]
    for lane in lanes:
        heart.watch(lane.worker.goes_on)
    schedule = Schedule(
        (
            *central_tasks(wiring),
            *housekeeping_tasks(wiring, stop),
            Task(
                name="model_check",
                every_seconds=_MODEL_CHECK_SECONDS,
                run=lambda: _check_model(wiring),
            ),
            Task(
                name="clock_step",
                every_seconds=_CLOCK_CHECK_SECONDS,
                run=lambda: _mend_clock_step(wiring),
            ),
            Task(
                name="unknown_destinations",
                every_seconds=_DESTINATION_CHECK_SECONDS,
                run=lambda: _park_unknown_destinations(wiring, name),
            ),
            Task(
                name="commitment_results",
                every_seconds=_COMMITMENT_SECONDS,
                run=wiring.return_commitments,
            ),
        )
    )
    all_is_loaded()
    schedule.start()
    threads = [lane.start(stop) for lane in lanes]
    audit = threading.Thread(
        target=wiring.audit_forwarder.run, args=(stop,), name="audit", daemon=True
    )
    audit.start()
    say_ready(wiring, name)
    bell = EventBell(inherited.delivery_bell)
    while not stop.is_set():
        bell.wait(1.0)
        schedule.look()
        for lane in lanes:
            lane.bell.ring()
        if not stop.is_set() and not all(thread.is_alive() for thread in threads):
            raise SystemExit(1)  # the lane has logged why; the supervisor starts all lanes anew
    for thread in threads:
        thread.join()
    audit.join()
    schedule.stop()
    wiring.sender.close()
    wiring.verifier.close()


@dataclass(frozen=True, kw_only=True)
class _LaneWorker:
    """What one thread of the delivery process does."""

    worker: Worker
    owner: str
    bell: EventBell

    def start(self, stop: threading.Event) -> threading.Thread:
        """Work until ``stop`` is set."""
        thread = threading.Thread(
            target=self.worker.run, args=(stop,), name=self.owner, daemon=True
        )
        thread.start()
        return thread


def _lanes(wiring: Wiring, name: str, destination: DestinationSettings) -> list[_LaneWorker]:
    """Deliveries to a destination, and in a second thread the proof that it keeps them, so that
    waiting for proof delays no report."""
    lane, confirm = wiring.lane(destination.name), wiring.confirm()
    owner = f"{name}:{destination.name}"
    if destination.proof is Proof.STATUS:  # what an earlier configuration wanted proven ends here
        both: dict[Stage, Handler] = {Stage.DELIVER: lane, Stage.CONFIRM: confirm}
        return [_lane_worker(wiring, owner, destination, both, may_work=lane.may_send)]
    proof = _lane_worker(
        wiring,
        f"{owner}:proof",
        destination,
        {Stage.CONFIRM: confirm},
        may_work=lambda: not lane.is_silent,
    )
    deliver = _lane_worker(
        wiring,
        owner,
        destination,
        {Stage.DELIVER: lane},
        may_work=lane.may_send,
        done=proof.bell.ring,
    )
    return [deliver, proof]


def _lane_worker(
    wiring: Wiring,
    owner: str,
    destination: DestinationSettings,
    handlers: dict[Stage, Handler],
    *,
    may_work: Callable[[], bool],
    done: Callable[[], None] = lambda: None,
) -> _LaneWorker:
    wiring.ledger.expire_leases(owner)
    bell = EventBell()
    worker = Worker(
        ledger=wiring.ledger,
        clock=wiring.clock,
        owner=owner,
        bell=bell,
        handlers=handlers,
        destination=destination.name,
        done=lambda _job: done(),
        may_work=may_work,
    )
    return _LaneWorker(worker=worker, owner=owner, bell=bell)


def _park_unknown_destinations(wiring: Wiring, name: str) -> None:
    """Jobs for destinations that the configuration no longer has wait for a person."""
    configured = {item.name for item in wiring.settings.destinations}
    for destination in wiring.ledger.open_destinations() - configured:
        decision = Park(
            fault=Fault.DESTINATION_UNKNOWN,
            detail=f"destination {destination} is not configured: add it to [[destinations]] and "
            "retry, or discard the job",
        )
        while jobs := _claim_for(wiring, name, destination):
            for job in jobs:
                wiring.ledger.fail(job, decision)
                log(
                    "job_parked",
                    exam_id=job.exam_id,
                    job_id=job.job_id,
                    destination=destination,
                    fault=decision.fault,
                )
                metrics.job_parked(job.stage, decision.fault)


def _claim_for(wiring: Wiring, owner: str, destination: str) -> list[Job]:
    return wiring.ledger.claim(
        TO_DESTINATIONS,
        owner=owner,
        lease_seconds=LEASE_SECONDS,
        limit=100,
        destination=destination,
    )


def _mend_clock_step(wiring: Wiring) -> None:
    mended = wiring.ledger.mend_clock_step()
    if mended:
        log("clock_stepped_back", count=mended)


def _check_model(wiring: Wiring) -> None:
    """Say so when a file of the model has changed. The loaded model goes on; a restart would refuse
    the changed one."""
    try:
        audited_model(wiring)
    except Permanent as error:
        log("model_changed", error=error)
