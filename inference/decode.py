"""From a DICOM file to grey levels with bright bones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from inference.codestream import frame_size
from inference.prediction import Rejection

MIN_SIDE_PIXELS = 256
MAX_PIXELS = 100_000_000

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_RLE = "1.2.840.10008.1.2.5"
# Transfer syntax (PS3.5 10): pydicom's plugin, and the codings that its frames may have
_CODED = {
    "1.2.840.10008.1.2.4.50": ("pylibjpeg", (0xC0,)),
    "1.2.840.10008.1.2.4.51": ("pylibjpeg", (0xC0, 0xC1)),
    "1.2.840.10008.1.2.4.57": ("pylibjpeg", (0xC3,)),
    "1.2.840.10008.1.2.4.70": ("pylibjpeg", (0xC3,)),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", (0xF7,)),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", (0xF7,)),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", (0x51,)),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", (0x51,)),
}
# No colour conversion, no copy of native pixels, no sign extension: the bits are masked here
_AS_STORED: dict[str, Any] = {"raw": True, "view_only": True, "correct_unused_bits": False}
_NUMBERS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
_MAX_NUMBER_BYTES = 4096
_MAX_TABLE_BYTES = 1 << 20
_MAX_PADDING_BYTES = 16
_MAX_SCANS = 8
_STRIP_ROWS = 64


class UnreadablePixels(ValueError):
    """The pixels cannot become grey levels. The message never holds a header value."""

    def __init__(self, message: str, rejection: Rejection = Rejection.PIXELS_UNREADABLE) -> None:
        super().__init__(message)
        self.rejection = rejection


Decode = Callable[[Path], NDArray[np.float32]]


def decode(path: Path) -> NDArray[np.float32]:
    """Grey levels of a single-frame CR or DX image (PS3.3 C.7.6.3), bright bones.

    Applies the modality LUT (C.11.1) and the first VOI LUT or window (C.11.2), inverts MONOCHROME1
    and ignores bits above Bits Stored (PS3.5 8.1.1). Returns float32 (Rows, Columns). Raises
    :class:`UnreadablePixels`, and ``OSError`` when the file cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote header values
        try:
            return _decode(path)
        except UnreadablePixels:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            name = type(error).__name__  # its text may quote header values
            raise UnreadablePixels(f"the object cannot be decoded ({name})") from None


def _decode(path: Path) -> NDArray[np.float32]:
    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    _require(syntax in (*_NATIVE, _RLE, *_CODED), "the transfer syntax is not supported")
    ds = dcmread(path, specific_tags=[*_NUMBERS, *_TABLES, "PixelData"])
    _check_header(ds)
    return _grey_levels(_stored_values(ds, syntax), _transformation(ds))


def _check_header(ds: Dataset) -> None:
    for keyword, limit in ((_NUMBERS, _MAX_NUMBER_BYTES), (_TABLES, _MAX_TABLE_BYTES)):
        for name in keyword:
            raw = ds.get_item(name) if name in ds else None
            _require(raw is None or _size(raw.value) <= limit, f"{name} is too long")
    _require(bool(ds.get("PixelData")), "there is no Pixel Data (7FE0,0010)")
    _require((ds.get("NumberOfFrames") or 1) == 1, "there is more than one frame")
    _require(ds.SamplesPerPixel == 1, "the image is not single-channel")
    _require(
        ds.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"), "the image is not grey"
    )
    _check_depth(ds)
    if ds.Rows * ds.Columns > MAX_PIXELS:
        raise UnreadablePixels("the image has too many pixels", Rejection.IMAGE_TOO_LARGE)
    if min(ds.Rows, ds.Columns) < MIN_SIDE_PIXELS:
        raise UnreadablePixels("the image is too small", Rejection.IMAGE_TOO_SMALL)


def _size(value: object) -> int:
    return len(value) if isinstance(value, bytes) else 0


def _check_depth(ds: Dataset) -> None:
    _require(ds.BitsAllocated in (8, 16), "Bits Allocated is neither 8 nor 16")
    _require(8 <= ds.BitsStored <= ds.BitsAllocated, "Bits Stored does not fit Bits Allocated")
    _require(ds.HighBit == ds.BitsStored - 1, "High Bit is not Bits Stored - 1")
    _require(ds.PixelRepresentation in (0, 1), "Pixel Representation is neither 0 nor 1")


def _stored_values(ds: Dataset, syntax: str) -> NDArray[np.uint16]:
    """Stored values as their lowest Bits Stored bits, unsigned, (Rows, Columns)."""
    plugin = "pylibjpeg" if syntax == _RLE else ""
    if syntax in _CODED:
        plugin, codings = _CODED[syntax]
        _check_codestream(ds, codings)
    values, _ = get_decoder(UID(syntax)).as_array(ds, index=0, decoding_plugin=plugin, **_AS_STORED)
    _require(values.shape == (ds.Rows, ds.Columns), "the pixels do not fill Rows x Columns")
    unsigned = values.view(np.dtype(f"u{values.dtype.itemsize}"))
    return unsigned.astype(np.uint16, copy=False) & np.uint16((1 << ds.BitsStored) - 1)


def _check_codestream(ds: Dataset, codings: tuple[int, ...]) -> None:
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    _require(b"\xff\xd9" in frame[-_MAX_PADDING_BYTES:], "the compressed frame is cut short")
    _require(frame.count(b"\xff\xda") <= _MAX_SCANS, "the compressed frame has too many scans")
    size = frame_size(frame)
    _require(size.coding in codings, "the frame's coding is not that of the transfer syntax")
    _require(
        (size.rows, size.columns, size.components) == (ds.Rows, ds.Columns, 1),
        "the compressed frame's size is not that of the header",
    )


def _transformation(ds: Dataset) -> NDArray[np.float32]:
    """Grey level of every possible stored value, (2 ** Bits Stored,)."""
    count = 1 << ds.BitsStored
    values = np.arange(count, dtype=np.int32)
    if ds.PixelRepresentation == 1:
        values[count // 2 :] -= count
    grey = apply_voi_lut(apply_modality_lut(values, ds), ds).astype(np.float32)
    _require(bool(np.isfinite(grey).all()), "the rescale or window values give no grey levels")
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = grey.max() + grey.min() - grey
    return grey


def _grey_levels(stored: NDArray[np.uint16], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Look stored values up in strips, which stay in the processor's cache."""
    grey = np.empty(stored.shape, dtype=np.float32)
    for begin in range(0, len(stored), _STRIP_ROWS):
        strip = slice(begin, begin + _STRIP_ROWS)
        np.take(table, stored[strip], out=grey[strip], mode="clip")
    return grey


def _require(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise UnreadablePixels(otherwise)
