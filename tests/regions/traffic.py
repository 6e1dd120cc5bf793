"""The senders: each AE title sends its images one after the other, by DCMTK's storescu, each again
until the node has acknowledged it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from dicom_node.adapters.scu.association import Peer
from tests.integration.peers import dcmtk
from tests.regions.plan import Sending

_PAUSE_SECONDS = 1.0
_TIMEOUTS = ("-to", 5, "-ta", 10, "-td", 30)
_SUCCESS = "Received Store Response (Success)"
_NOT_KNOWN = "Calling AE Title Not Recognized"


class Traffic:
    """What was sent and answered so far; safe for several threads.

    ``address``: where a region's senders find its node now.
    """

    def __init__(self, sendings: Sequence[Sending], address: Callable[[str], Peer]) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._queues: dict[tuple[str, str], list[Sending]] = defaultdict(list)
        self._planned: dict[tuple[str, str], set[str]] = defaultdict(set)
        for sending in sorted(sendings, key=lambda sending: sending.at_seconds):
            self._queues[sending.region, sending.ae_title].append(sending)
            key = (sending.region, sending.institution_id)
            self._planned[key].add(sending.sop_instance_uid)
        self._sent: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._acknowledged: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._unanswered: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send for the time of the block; what is not sent at its end stays unsent."""
        began = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, args=(queue, began), name=f"{region} {ae_title}")
            for (region, ae_title), queue in self._queues.items()
        ]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    @property
    def over(self) -> bool:
        """Whether everything is sent and answered."""
        return not any(thread.is_alive() for thread in self._threads)

    def planned(self, region: str, institution_id: str) -> frozenset[str]:
        """Images that an institution has to send."""
        return frozenset(self._planned[region, institution_id])

    def sent(self, region: str, institution_id: str) -> frozenset[str]:
        """Images that an institution has sent so far, answered or not."""
        with self._lock:
            return frozenset(self._sent[region, institution_id])

    def acknowledged(self, region: str, institution_id: str) -> frozenset[str]:
        """Images that the node has taken."""
        with self._lock:
            return frozenset(self._acknowledged[region, institution_id])

    def counts(self, region: str) -> dict[str, int]:
        """Attempts that got no success, images that were sent again though they were acknowledged,
        and what became of a stranger's images."""
        with self._lock:
            return {
                "unanswered": self._unanswered[region],
                "repeated": self._repeated[region],
                "strangers_sent": self._strangers[region],
                "strangers_rejected": self._rejected[region],
            }

    def _work(self, sendings: Sequence[Sending], began: float) -> None:
        for sending in sendings:
            self._stop.wait(max(0.0, began + sending.at_seconds - time.monotonic()))
            if self._stop.is_set():
                return
            self._begin(sending)
            while not self._send(sending):
                if self._stop.wait(_PAUSE_SECONDS):
                    return

    def _begin(self, sending: Sending) -> None:
        key, uid = (sending.region, sending.institution_id), sending.sop_instance_uid
        with self._lock:
            if not sending.institution_id:
                self._strangers[sending.region] += 1
                return
            self._repeated[sending.region] += uid in self._acknowledged[key]
            self._sent[key].add(uid)

    def _send(self, sending: Sending) -> bool:
        """Whether the node has given its last word: success, or that it does not know the
        sender."""
        said = ""
        with suppress(OSError, subprocess.TimeoutExpired):  # no address while a node starts
            peer = self._address(sending.region)
            said = dcmtk(
                "storescu", "-v", *_TIMEOUTS, "-aet", sending.ae_title, "-aec", peer.ae_title,
                peer.host, peer.port, sending.path,
            )  # fmt: skip
        with self._lock:
            if _SUCCESS in said:
                key = (sending.region, sending.institution_id)
                self._acknowledged[key].add(sending.sop_instance_uid)
            elif _NOT_KNOWN in said and not sending.institution_id:
                self._rejected[sending.region] += 1
            else:
                self._unanswered[sending.region] += 1
                return False
        return True
