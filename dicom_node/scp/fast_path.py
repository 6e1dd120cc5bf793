"""A faster way from the network into a received file, around pynetdicom's private parts.

pynetdicom takes each part of a data set through six copies and its state machine. Here its threads
wait until something happens (`waiting.py`), the connection is read in large pieces, and fragments
of a C-STORE data set go from there into their file. Everything else, the end of each data set too,
goes through pynetdicom as before. The limits are those of `guard.py`. `receive.fast_path = false`
turns all of it off; with any version of pynetdicom but that of `waiting.py` it turns itself off
(ADR 26).
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

from pynetdicom.association import Association

from dicom_node import waiting
from dicom_node.scp.guard import GuardedSocket, Limits
from dicom_node.scp.incoming import IncomingFile

_BUFFER_BYTES = 256 * 1024
_P_DATA_TF = 0x04
_PDU_HEADER = struct.Struct(">BxL")
"""PDU type, reserved, PDU length (PS3.8 9.3.1)."""
_PDV_HEADER = struct.Struct(">LBB")
"""Item length, presentation context, message control header (PS3.8 9.3.5.1, E.2)."""
_COMMAND, _LAST = 0b01, 0b10
_ESTABLISHED = "Sta6"
"""A state of PS3.8 9.2."""


def attach(association: Association, connection: socket.socket, limits: Limits) -> None:
    """Have an association that has not begun read ``connection`` in this way."""
    waiting.attach(association, Reader(association))
    association.set_socket(BufferedSocket(association, connection, limits))


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


class Reader(waiting.WaitingReader):
    """Stores data sets by itself."""

    socket: BufferedSocket

    def _may_read(self) -> bool:
        return self.socket.may_read

    def _holds_data(self) -> bool:
        if self.socket.holds_data:
            return True
        if self.assoc.dimse.message is None:
            self.socket.let_go()
        return False

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
