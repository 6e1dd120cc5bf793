"""Attributes as plain values to a DICOM file (PS3.10), Explicit VR Little Endian, UTF-8.

pydicom checks and converts every element for itself, which takes ten times as long as all the rest
of a report. It still writes what comes from the source image, and whole documents in another
character set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from io import BytesIO

from pydicom.charset import encode_string, python_encoding
from pydicom.config import RAISE, settings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR, PersonName

from sr_templates.uids import derived_uid

Item = dict[str, object]
"""Keywords to values: text and bytes as they are, numbers for IS, US, UL and FD, a list of floats
for FL, a list of items for SQ, None for no value; what only pydicom can write as its
``DataElement``."""

UTF_8 = "ISO_IR 192"
IMPLEMENTATION_UID = derived_uid("implementation", "boneage-node project")
"""Implementation Class UID (0002,0012) of the files that this module writes."""

_NUMBERS = {"US": "<H", "UL": "<I", "FD": "<d"}
_PREAMBLE = bytes(128) + b"DICM"
_ITEM = b"\xfe\xff\x00\xe0"
_ENCODED_BY_CHARACTER_SET = frozenset({VR.SH, VR.LO, VR.ST, VR.LT, VR.UC, VR.UT, VR.PN})
"""PS3.5 6.1.2.3."""
_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")
"""The default repertoire (PS3.5 6.1.2.1); pydicom takes it for Latin-1, which reads more."""


def encode_file(document: Item, *, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A complete file. Texts are in UTF-8, or in the Specific Character Set (0008,0005) that the
    document states, which must have all their characters. ``transfer_syntax``: Explicit VR Little
    Endian, or one that differs from it by the pixels alone."""
    meta: Item = {
        "FileMetaInformationVersion": b"\0\1",
        "MediaStorageSOPClassUID": document["SOPClassUID"],
        "MediaStorageSOPInstanceUID": document["SOPInstanceUID"],
        "TransferSyntaxUID": transfer_syntax,
        "ImplementationClassUID": IMPLEMENTATION_UID,
    }
    if document["SpecificCharacterSet"] != UTF_8:
        return _by_pydicom(document, meta)
    encoded = _item(meta)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(encoded))
    return b"".join((_PREAMBLE, length, encoded, _item(document)))


def has_all_characters(document: Item, character_set: tuple[str, ...]) -> bool:
    """Whether every text of the document can be written in a Specific Character Set (0008,0005)."""
    encodings = ["ascii" if n in _ASCII else python_encoding.get(n, "") for n in character_set]
    if not all(encodings):
        return False
    before, settings.writing_validation_mode = settings.writing_validation_mode, RAISE
    try:
        for text in _texts(document):
            encode_string(text, encodings)
    except (UnicodeError, LookupError):
        return False
    finally:
        settings.writing_validation_mode = before
    return True


def _texts(document: Item) -> Iterator[str]:
    for element in to_dataset(document).iterall():
        if element.VR in _ENCODED_BY_CHARACTER_SET and element.value:
            values = element.value if element.VM > 1 else [element.value]
            for value in values:
                yield from value.components if isinstance(value, PersonName) else [str(value)]


def to_dataset(item: Item) -> Dataset:
    """The same for pydicom."""
    dataset = Dataset()
    for keyword, value in item.items():
        if isinstance(value, DataElement):
            dataset.add(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            setattr(dataset, keyword, [to_dataset(below) for below in value])
        else:
            setattr(dataset, keyword, value)
    return dataset


def _by_pydicom(document: Item, meta: Item) -> bytes:
    dataset = to_dataset(document)
    dataset.file_meta = FileMetaDataset(to_dataset(meta))
    with BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


def _item(item: Item) -> bytes:
    """All its elements in the order of their tags (PS3.5 7.1)."""
    known = sorted((_header(keyword), value) for keyword, value in item.items())
    return b"".join([_element(*header[1:], value) for header, value in known])


@cache
def _header(keyword: str) -> tuple[int, bytes, str, bool]:
    """Tag as a number, tag and VR as bytes, VR, and whether its length takes four bytes after two
    that are reserved (PS3.5 7.1.2)."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    vr = dictionary_VR(tag)
    encoded = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return tag, encoded, vr, vr in EXPLICIT_VR_LENGTH_32


def _element(header: bytes, vr: str, long: bool, value: object) -> bytes:
    if isinstance(value, DataElement):
        return _written_by_pydicom(value)
    encoded = _value(vr, value)
    if len(encoded) % 2:
        encoded += b"\0" if vr in {"UI", "OB"} else b" "
    return header + struct.pack("<xxI" if long else "<H", len(encoded)) + encoded


def _value(vr: str, value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if vr == "SQ":
        assert isinstance(value, list)
        encoded = [_item(item) for item in value]
        return b"".join([_ITEM + struct.pack("<I", len(one)) + one for one in encoded])
    if vr == "FL":
        assert isinstance(value, list)
        return struct.pack(f"<{len(value)}f", *value)
    return struct.pack(_NUMBERS[vr], value) if vr in _NUMBERS else str(value).encode()


def _written_by_pydicom(element: DataElement) -> bytes:
    with DicomBytesIO() as file:
        file.is_little_endian, file.is_implicit_VR = True, False
        write_data_element(file, element, UTF_8)
        return file.getvalue()
