"""What each process of the node does: receiver, worker, delivery. Started by `node.py`."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

from dicom_node import metrics
from dicom_node.adapters.bell import EventBell
from dicom_node.audit import audited_model
from dicom_node.central_tasks import central_tasks
from dicom_node.domain.commitment import CommitmentResult, Proof
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.domain.job import TO_DESTINATIONS, Job, Stage
from dicom_node.domain.retry import Park
from dicom_node.headers import read_identity
from dicom_node.housekeeping import housekeeping_tasks
from dicom_node.logs import configure_logging, log
from dicom_node.pulse import Heart
from dicom_node.schedule import Schedule, Task
from dicom_node.scp.commitment import CommitmentProvider
from dicom_node.scp.server import Receiver
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.stages.accept import Accept
from dicom_node.stopping import end_as_orphan, stop_event
from dicom_node.supervisor import leave_note, ready_path
from dicom_node.tls import ContextSource
from dicom_node.wiring import Wiring
from dicom_node.worker import LEASE_SECONDS, Batch, Handler, Worker

RECEIVER_GRACE_SECONDS = 60.0
WORKER_GRACE_SECONDS = 60.0
DELIVERY_GRACE_SECONDS = 90.0
_MODEL_CHECK_SECONDS = 3600
_CLOCK_CHECK_SECONDS = 60
_DESTINATION_CHECK_SECONDS = 60
_COMMITMENT_SECONDS = 5


class Role(StrEnum):
    """What a process does."""

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
    pulse: int = -1
    """Where this process shows that it lives."""

    def numbers(self) -> tuple[int, ...]:
        """All of them, in order."""
        return tuple(asdict(self).values())

    def descriptors(self) -> tuple[int, ...]:
        """Those that are open."""
        return tuple(number for number in self.numbers() if number >= 0)


def run_process(settings: Settings, role: Role, name: str, inherited: Inherited) -> None:
    """Run one process until SIGTERM or until the supervisor is gone."""
    configure_logging(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    stop = stop_event(signal.SIGTERM, lifeline=inherited.lifeline)
    end_as_orphan(inherited.lifeline)
    wiring = Wiring(settings)
    metrics.activate(wiring.folders.metrics, name)
    _ROLES[role](wiring, name, inherited, stop)


def _receive(wiring: Wiring, name: str, inherited: Inherited, stop: threading.Event) -> None:
    Heart(inherited.pulse)
    bell = EventBell(inherited.work_bell)
    accept = Accept(
        spool=wiring.spool,
        ledger=wiring.ledger,
        clock=wiring.clock,
        read_identity=read_identity,
        max_object_bytes=wiring.settings.receive.max_object_mb * 1_000_000,
    )
    delivery_bell = EventBell(inherited.delivery_bell)

    def told(result: CommitmentResult) -> bool:
        asked = wiring.commitments.record_result(result)
        delivery_bell.ring()
        return asked

    receiver = Receiver(
        wiring.settings,
        listening=socket.socket(fileno=inherited.listening),
        secure=_secure(wiring, inherited),
        incoming=wiring.spool.incoming_of(name),
        accept=accept,
        commitment=CommitmentProvider(promises=wiring.promises, commit=wiring.commit, told=told),
        stored=lambda _: bell.ring(),
        disk_used_percent=wiring.spool.usage_percent,
        witness=wiring.witness(name),
        quarantine=wiring.quarantine,
    )
    gc.collect()
    gc.freeze()  # pynetdicom has all objects looked at for garbage every six seconds
    receiver.start()
    _say_ready(wiring, name)
    stop.wait()
    log("drain_started")
    log("drain_finished", count=receiver.drain(RECEIVER_GRACE_SECONDS))


def _secure(wiring: Wiring, inherited: Inherited) -> tuple[socket.socket, ContextSource] | None:
    if wiring.certificates is None or inherited.listening_tls < 0:
        return None
    return socket.socket(fileno=inherited.listening_tls), wiring.certificates.server


def _work(wiring: Wiring, name: str, inherited: Inherited, stop: threading.Event) -> None:
    begun = time.monotonic()
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
    wiring.reporter.warm(wiring.report_kinds)
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
    heart.watch(worker.goes_on)
    _say_ready(wiring, name)
    worker.run(stop)


def _deliver(wiring: Wiring, name: str, inherited: Inherited, stop: threading.Event) -> None:
    """Lanes, each a thread, per destination: a destination that hangs holds up no other."""
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
    schedule.start()
    threads = [lane.start(stop) for lane in lanes]
    audit = threading.Thread(
        target=wiring.audit_forwarder.run, args=(stop,), name="audit", daemon=True
    )
    audit.start()
    _say_ready(wiring, name)
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


def _ring_after(stage: Stage, ring: Callable[[], None]) -> Callable[[Job], None]:
    def done(job: Job) -> None:
        if job.stage is stage:
            ring()

    return done


def _say_ready(wiring: Wiring, name: str) -> None:
    leave_note(ready_path(wiring.folders.run, name), str(os.getpid()))


_ROLES: dict[Role, Callable[[Wiring, str, Inherited, threading.Event], None]] = {
    Role.RECEIVER: _receive,
    Role.WORKER: _work,
    Role.DELIVERY: _deliver,
}
