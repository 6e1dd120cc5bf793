"""Content items of Structured Reports (PS3.3 C.17.3, C.18)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydicom.sr.coding import Code
from pydicom.valuerep import format_number_as_ds

from sr_templates.encoding import Item

Relationship = Literal[
    "CONTAINS", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "SELECTED FROM"
]
"""Relationship Type (0040,A010), seen from the item above."""


def coded(code: Code) -> Item:
    """Code Sequence Macro (PS3.3 8.8)."""
    return {
        "CodeValue": code.value,
        "CodingSchemeDesignator": code.scheme_designator,
        "CodeMeaning": code.meaning,
    }


def root(name: Code, below: list[Item], *, template: str, continuous: bool) -> Item:
    """The attributes of a document that make its content tree."""
    return {
        "ValueType": "CONTAINER",
        "ConceptNameCodeSequence": [coded(name)],
        "ContinuityOfContent": _CONTINUITY[continuous],
        "ContentTemplateSequence": [_template(template)],
        "ContentSequence": below,
    }


def container(
    name: Code, below: list[Item], *, template: str | None = None, continuous: bool
) -> Item:
    """CONTAINER (C.18.8)."""
    item = _item("CONTAINS", "CONTAINER", name, below)
    item["ContinuityOfContent"] = _CONTINUITY[continuous]
    if template:
        item["ContentTemplateSequence"] = [_template(template)]
    return item


def text(relationship: Relationship, name: Code, value: str) -> Item:
    """TEXT (C.18.2)."""
    return _item(relationship, "TEXT", name) | {"TextValue": value}


def code(relationship: Relationship, name: Code, value: Code, below: Sequence[Item] = ()) -> Item:
    """CODE (C.18.3)."""
    item = _item(relationship, "CODE", name, below)
    item["ConceptCodeSequence"] = [coded(value)]
    return item


def uid(relationship: Relationship, name: Code, value: str) -> Item:
    """UIDREF (C.18.6)."""
    return _item(relationship, "UIDREF", name) | {"UID": value}


def number(
    relationship: Relationship, name: Code, value: float, unit: Code, below: Sequence[Item] = ()
) -> Item:
    """NUM (C.18.1); a measured value, unlike a count, also as a floating point number."""
    measured: Item = {
        "NumericValue": format_number_as_ds(float(value)),
        "MeasurementUnitsCodeSequence": [coded(unit)],
    }
    if isinstance(value, float):
        measured["FloatingPointValue"] = value
    item = _item(relationship, "NUM", name, below)
    item["MeasuredValueSequence"] = [measured]
    return item


def image(
    relationship: Relationship, name: Code, reference: Item, below: Sequence[Item] = ()
) -> Item:
    """IMAGE (C.18.4). ``reference``: of :func:`instance_reference`."""
    item = _item(relationship, "IMAGE", name, below)
    item["ReferencedSOPSequence"] = [reference]
    return item


def polyline(name: Code, points: Sequence[tuple[float, float]], selected_from: Item) -> Item:
    """SCOORD (C.18.6): points as (column, row) in an image."""
    return _item("CONTAINS", "SCOORD", name, [selected_from]) | {
        "GraphicType": "POLYLINE",
        "GraphicData": [edge for point in points for edge in point],
    }


def instance_reference(sop_class_uid: str, sop_instance_uid: str) -> Item:
    """SOP Instance Reference Macro (PS3.3 10.8)."""
    return {
        "ReferencedSOPClassUID": sop_class_uid,
        "ReferencedSOPInstanceUID": sop_instance_uid,
    }


_CONTINUITY = {True: "CONTINUOUS", False: "SEPARATE"}


def _template(identifier: str) -> Item:
    return {"MappingResource": "DCMR", "TemplateIdentifier": identifier}


def _item(
    relationship: Relationship, value_type: str, name: Code, below: Sequence[Item] = ()
) -> Item:
    item: Item = {
        "RelationshipType": relationship,
        "ValueType": value_type,
        "ConceptNameCodeSequence": [coded(name)],
    }
    if below:
        item["ContentSequence"] = list(below)
    return item
