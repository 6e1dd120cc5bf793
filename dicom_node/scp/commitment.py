"""Storage Commitment on associations that others open: requests to the node, and results of its
own (PS3.4 Annex J)."""

from __future__ import annotations

import threading
import time

from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.commitment import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_ACTION,
    SUCCESS,
    ResultHandler,
    event_information,
    event_report_status,
    event_type,
    read_action,
)
from dicom_node.domain.commitment import FailureReason, Promise
from dicom_node.domain.errors import Transient
from dicom_node.logs import log
from dicom_node.ports import Promises
from dicom_node.stages.commit import Commit

_QUIET_SECONDS = 2.0
"""A requester that has more to say says it within this time; else the result goes out."""
_LOOK_SECONDS = 0.1


class CommitmentProvider:
    """Takes requests, and returns their results on any association of the requester: the one on
    which they came, or a later one. The delivery process opens one where neither is at hand.

    ``told``: takes the results of the node's own requests.
    """

    def __init__(self, *, promises: Promises, commit: Commit, told: ResultHandler) -> None:
        self._promises = promises
        self._commit = commit
        self._told = told
        self._busy: set[Association] = set()

    def on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """A destination's result."""
        return event_report_status(lambda: event.event_information, self._told), None

    def on_action(self, event: evt.Event, institution_id: str) -> tuple[int, None]:
        """A request: success when it is on stable storage."""
        if event.action_type != REQUEST_ACTION:
            return NO_SUCH_ACTION, None
        try:
            request = read_action(event.action_information)
        except Exception:  # noqa: BLE001 hostile bytes raise anything in pydicom
            return INVALID_ARGUMENT_VALUE, None
        ae_title = event.assoc.requestor.ae_title.strip()
        try:
            taken = self._promises.promise(
                request, ae_title=ae_title, institution_id=institution_id
            )
        except Transient:
            return PROCESSING_FAILURE, None
        if not taken:
            return FailureReason.DUPLICATE_TRANSACTION_UID.value, None
        log("commitment_requested", institution=institution_id, count=len(request.references))
        self.return_results(event.assoc)
        return SUCCESS, None

    def return_results(self, association: Association) -> None:
        """Tell the requester, in a thread of its own, what waits for it."""
        if association not in self._busy:
            self._busy.add(association)
            threading.Thread(
                target=self._return_results, args=(association,), name="commitment", daemon=True
            ).start()

    def _return_results(self, association: Association) -> None:
        ae_title = association.requestor.ae_title.strip()
        try:
            while self._promises.open([ae_title], due=False):
                if not _becomes_quiet(association):
                    return
                for promise in self._promises.open([ae_title], due=False):  # as it is now
                    if not self._tell(association, promise):
                        return
        except Transient as error:
            log("ledger_unavailable", fault=error.fault, error=error)
        finally:
            self._busy.discard(association)

    def _tell(self, association: Association, promise: Promise) -> bool:
        result = self._commit.result(promise)
        try:
            answer, _ = association.send_n_event_report(
                event_information(result), event_type(result), PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
        except (RuntimeError, ValueError):  # the association has ended, or lacks the context
            return False
        if answer.get("Status") != SUCCESS:
            return False
        self._commit.told(promise, result)
        return True


def _becomes_quiet(association: Association) -> bool:
    """Wait until nothing has come for a while; False when the association ended before.

    A request that crosses the result would be taken for its answer, and some requesters take the
    result for the answer to what they have just sent.
    """
    while association.is_established:
        if _is_idle(association):
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _is_idle(association: Association) -> bool:
    dimse, idle = association.dimse, association.dul._idle_timer
    silent = (association.network_timeout or 0.0) - idle.remaining
    return dimse.message is None and dimse.msg_queue.empty() and silent >= _QUIET_SECONDS
