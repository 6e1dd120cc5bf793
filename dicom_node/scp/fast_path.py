"""A faster way from the network into a received file, around pynetdicom's private parts.

pynetdicom looks at each association every millisecond, twice, and takes each part of a data set
through six copies and its state machine. Here its threads wait until something happens, the
connection is read in large pieces, and fragments of a C-STORE data set go from there into their
file. Everything else, the end of each data set too, goes through pynetdicom as before. The limits
are those of `guard.py`. `receive.fast_path = false` turns all of it off; with any version but
:data:`VERSION` it turns itself off (ADR 26).
"""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pynetdicom
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from dicom_node.scp.guard import GuardedSocket, Limits
from dicom_node.scp.incoming import IncomingFile

VERSION = "3.0.4"
"""Of pynetdicom: the one whose private parts these are."""
_BUFFER_BYTES = 256 * 1024
_P_DATA_TF = 0x04
_PDU_HEADER = struct.Struct(">BxL")
"""PDU type, reserved, PDU length (PS3.8 9.3.1)."""
_PDV_HEADER = struct.Struct(">LBB")
"""Item length, presentation context, message control header (PS3.8 9.3.5.1, E.2)."""
_COMMAND, _LAST = 0b01, 0b10
_ESTABLISHED, _ENDING = "Sta6", "Sta13"
"""States of PS3.8 9.2."""


def is_usable() -> bool:
    """Whether the installed pynetdicom is the one that this module was written for."""
    return bool(pynetdicom.__version__ == VERSION)


def attach(association: Association, connection: socket.socket, limits: Limits) -> None:
    """Have an association that has not begun read ``connection`` in this way."""
    reader = Reader(association)
    reader.artim_timer = association.dul.artim_timer
    reader._idle_timer = association.dul._idle_timer
    association.dul = reader
    turn = Turn(association)
    reader.ended = turn.wake
    reader.to_provider_queue = _Told(reader.wake)
    reader.to_user_queue = _Told(turn.wake)
    association.dimse.msg_queue = _Told(turn.wake, taken=reader.wake)
    association._reactor_checkpoint = turn  # type: ignore[assignment]
    association.set_socket(BufferedSocket(association, connection, limits))


class _Told(queue.Queue[Any]):
    """A queue that tells when something was put into it, or taken from it."""

    def __init__(self, put: Callable[[], None], taken: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._tell_put, self._tell_taken = put, taken

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell_put()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        self._tell_taken()
        return item


class Turn:
    """Stands for the event at which the association's thread waits in each turn of its loop: lets
    it through when there is something to do."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._condition = threading.Condition()
        self._open = True

    def set(self) -> None:
        """Let the thread go on."""
        with self._condition:
            self._open = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Stop the thread: another one uses its association."""
        with self._condition:
            self._open = False

    def wake(self) -> None:
        """Something may have happened."""
        with self._condition:
            self._condition.notify_all()

    def wait(self) -> None:
        """Until the thread may go on and has something to do."""
        idle = self._association.dul._idle_timer
        with self._condition:
            while not (self._open and self._has_work()):
                self._condition.wait(max(idle.remaining, 0.1))

    def _has_work(self) -> bool:
        association, reader = self._association, self._association.dul
        return bool(
            association._kill
            or association.dimse.msg_queue.queue
            or reader.to_user_queue.queue
            or reader.idle_timer_expired()
            or not reader.is_alive()
        )


class BufferedSocket(GuardedSocket):
    """Reads as much as there is, up to a limit, and gives it out in the pieces that are asked
    for."""

    def __init__(self, association: Association, connection: socket.socket, limits: Limits) -> None:
        super().__init__(association, connection, limits)
        self._rest = memoryview(b"")
        """Bytes that were read and not yet given out."""
        self._buffer: memoryview | None = None
        self._returned: list[bytearray] = []

    @property
    def holds_data(self) -> bool:
        """Whether a read would not have to wait for the network; `poll` knows nothing of that."""
        secured = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0
        return bool(self._rest) or secured

    def unread(self, *pieces: bytes) -> None:
        """The next calls of :meth:`recv` return these."""
        self._returned = [bytearray(piece) for piece in pieces]

    def recv(self, nr_bytes: int) -> bytearray:
        """As the guard's, after what was returned."""
        return self._returned.pop(0) if self._returned else super().recv(nr_bytes)

    def take_rest(self) -> None:
        """The rest of the PDU whose header :meth:`recv` has returned is read by :meth:`some` and
        :meth:`exactly`; the next call of :meth:`recv` returns the next header."""
        self._within_pdu = False

    def some(self, at_most: int) -> memoryview:
        """At least one byte, valid until the next call. Raises as :meth:`recv`, and
        ``ConnectionError`` where the peer has gone."""
        if not self._rest:
            if self._buffer is None:
                self._buffer = memoryview(bytearray(_BUFFER_BYTES))
            self._rest = self._buffer[: self._receive(self._buffer)]
            if not self._rest:
                raise ConnectionAbortedError
        piece, self._rest = self._rest[:at_most], self._rest[at_most:]
        return piece

    def exactly(self, count: int) -> bytes:
        """So many bytes. Raises as :meth:`some`."""
        piece = self.some(count) if count else b""
        if len(piece) == count:
            return bytes(piece)
        parts = [bytes(piece)]
        while count := count - len(parts[-1]):
            parts.append(bytes(self.some(count)))
        return b"".join(parts)

    def let_go(self) -> None:
        """Give the buffer's memory back, if nothing is left in it: until data comes again."""
        if not self._rest:
            self._rest, self._buffer = memoryview(b""), None

    def _read(self, nr_bytes: int) -> bytearray:
        received = bytearray()
        with suppress(ConnectionAbortedError):
            while len(received) < nr_bytes:
                received += self.some(nr_bytes - len(received))
        return received


class Reader(DULServiceProvider):
    """pynetdicom's reader of one connection, which waits instead of looking again and again, and
    which stores data sets by itself."""

    socket: BufferedSocket

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        self.ended: Callable[[], None] = lambda: None
        self._run_loop_delay = 0  # it has waited already
        self._bell = -1
        """An eventfd while the thread runs."""
        self._bell_lock = threading.Lock()

    def run(self) -> None:
        """Until the connection has ended."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            super().run()
        finally:
            with self._bell_lock:  # its number may soon be that of something else
                os.close(self._bell)
                self._bell = -1
            self.ended()

    def wake(self) -> None:
        """Something may have happened beside the network."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def kill_dul(self) -> None:
        """End soon."""
        super().kill_dul()
        self.wake()

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == _ENDING:
            return super()._is_transport_event()
        if self.event_queue.queue or self._kill_thread or not self._has_data():
            return False
        self._read_pdu_data()
        return True

    def _has_data(self) -> bool:
        """Wait for data, for a call of :meth:`wake` or for the time that is up."""
        connection = self.socket.socket
        poll, reads = select.poll(), connection is not None and self.socket.may_read
        if connection is not None and reads:
            if self.socket.holds_data:
                return True
            if self.assoc.dimse.message is None:
                self.socket.let_go()
            poll.register(connection, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(self._patience_ms())]
        if self._bell in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        return reads and any(descriptor != self._bell for descriptor in ready)

    def _patience_ms(self) -> float | None:
        timer = self.artim_timer
        runs = timer._start_time is not None and timer._end_time is None
        return max(timer.remaining, 0) * 1000 + 1 if runs and timer.timeout is not None else None

    def _read_pdu_data(self) -> None:
        """One PDU: what it holds of a data set goes to the data set's file, the rest to
        pynetdicom."""
        file = self._file()
        if file is None:
            super()._read_pdu_data()
            return
        try:
            header = bytes(self.socket.recv(_PDU_HEADER.size))
            if len(header) < _PDU_HEADER.size:
                raise ConnectionAbortedError
            kind, length = _PDU_HEADER.unpack(header)
            if kind == _P_DATA_TF:
                self.socket.take_rest()
                rest = self._store(file, length)
                if not rest:
                    return
                self.socket.unread(_PDU_HEADER.pack(kind, len(rest)), rest)
            else:
                self.socket.unread(header)
        except OSError:
            self.event_queue.put("Evt17")  # the connection has ended
            return
        super()._read_pdu_data()

    def _file(self) -> IncomingFile | None:
        """The file of the data set that is being received, if its next part may come now."""
        message = self.assoc.dimse.message
        file = message._data_set_file if message is not None else None
        established = self.state_machine.current_state == _ESTABLISHED
        return file if established and isinstance(file, IncomingFile) else None

    def _store(self, file: IncomingFile, left: int) -> bytes:
        """Write the fragments of a P-DATA-TF of ``left`` bytes; return those from the first one on
        that is not plainly a part of the data set. The last fragment is left over as an empty
        one: pynetdicom sees the end of the message."""
        while left >= _PDV_HEADER.size:
            head = self.socket.exactly(_PDV_HEADER.size)
            left -= _PDV_HEADER.size
            size, context, control = _PDV_HEADER.unpack(head)
            size -= 2
            if control & _COMMAND or not 0 <= size <= left:
                return head + self.socket.exactly(left)
            left -= size
            while size:
                piece = self.socket.some(size)
                file.write(piece)
                size -= len(piece)
            if control & _LAST:
                return _PDV_HEADER.pack(2, context, control) + self.socket.exactly(left)
        return self.socket.exactly(left)
