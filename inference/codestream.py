"""What a compressed frame says about its own size, read before a decoder sees it.

JPEG and JPEG-LS: frame header SOFn (ITU-T T.81 B.2.2, T.87 C.2.2). JPEG 2000: SIZ (ITU-T T.800
A.5.1). A decoder allocates what these headers claim, so they must agree with the DICOM header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_START_OF_SCAN = 0xDA
_MAX_SEGMENTS = 10_000
"""Before the frame header, fill bytes (T.81 B.1.1.2) counted in: honest frames have a dozen."""


@dataclass(frozen=True, kw_only=True)
class FrameSize:
    """Size of a codestream in pixels; ``coding`` is the SOF marker's low byte, 0x51 for JPEG
    2000."""

    rows: int
    columns: int
    components: int
    coding: int


def frame_size(frame: bytes) -> FrameSize:
    """Read the size from a JPEG, JPEG-LS or JPEG 2000 codestream.

    Raises ``ValueError`` when the frame is no such codestream (a JP2 file among others) and
    ``struct.error`` or ``IndexError`` when it is cut short.
    """
    if frame[:4] == b"\xff\x4f\xff\x51":
        return _siz(frame)
    if frame[:2] == b"\xff\xd8":
        return _sof(frame)
    raise ValueError("not a JPEG, JPEG-LS or JPEG 2000 codestream")


def _siz(frame: bytes) -> FrameSize:
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    return FrameSize(rows=bottom - top, columns=right - left, components=components, coding=0x51)


def _sof(frame: bytes) -> FrameSize:
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if frame[position] != 0xFF:
            raise ValueError("no marker where a segment ends")
        marker = frame[position + 1]
        if marker in _SOF_MARKERS:
            rows, columns, components = struct.unpack_from(">HHB", frame, position + 5)
            return FrameSize(rows=rows, columns=columns, components=components, coding=marker)
        if marker == _START_OF_SCAN:
            raise ValueError("a scan before the frame header")
        fill = marker == 0xFF
        (length,) = (0,) if fill else struct.unpack_from(">H", frame, position + 2)
        position += 1 if fill else 2 + length
    raise ValueError("too many segments or fill bytes before the frame header")
