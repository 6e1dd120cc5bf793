"""The machine-readable report: Comprehensive 3D SR, TID 1500 with one planar group (TID 1410).

Every number is a direct child of the measurement group, because viewers show only those; the
group carries the hand's box, because a group without a region is not shown at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydicom.sr.coding import Code

from sr_templates import concepts
from sr_templates.content import AssessedContent, Box, InvalidContent, Prior
from sr_templates.content_items import (
    code,
    container,
    image,
    instance_reference,
    number,
    polyline,
    root,
    text,
    uid,
)
from sr_templates.document import (
    MEASUREMENTS,
    device_observer,
    language_item,
    report_uid,
    sr_document,
)
from sr_templates.encoding import Item
from sr_templates.source import Source
from sr_templates.wording import wording


def build_measurement_report(source: Source, content: AssessedContent) -> Item:
    """The whole document. Raises :class:`InvalidContent` for numbers that are not finite, a box
    outside the image, an image of another SOP class or codes without a text."""
    group = container(
        concepts.MEASUREMENT_GROUP, _group(source, content), template="1410", continuous=True
    )
    library_group = container(
        concepts.IMAGE_LIBRARY_GROUP, [_library_entry(source)], continuous=True
    )
    tree = root(
        concepts.IMAGING_MEASUREMENT_REPORT,
        [
            language_item(content),
            *device_observer(content),
            code("HAS CONCEPT MOD", concepts.PROCEDURE_REPORTED, concepts.IMAGING_PROCEDURE),
            container(concepts.IMAGE_LIBRARY, [library_group], continuous=True),
            container(concepts.IMAGING_MEASUREMENTS, [group], continuous=True),
        ],
        template="1500",
        continuous=True,
    )
    tree["CodingSchemeIdentificationSequence"] = [_private_scheme(content)]
    return sr_document(MEASUREMENTS, tree, source, content)


def _private_scheme(content: AssessedContent) -> Item:
    """Whose the private designator is (PS3.3 C.12.1.1.9)."""
    return {
        "CodingSchemeDesignator": concepts.PRIVATE_SCHEME,
        "CodingSchemeName": concepts.PRIVATE_SCHEME_NAME,
        "CodingSchemeResponsibleOrganization": content.device.manufacturer,
    }


def _library_entry(source: Source) -> Item:
    """The source image (TID 1601); one that lacks its orientation or its spacing is described
    without both (TID 1603)."""
    modality = concepts.MODALITIES.get(source.sop_class_uid)
    if modality is None:
        raise InvalidContent("the source is neither a CR nor a DX image For Presentation")
    described = [
        code("HAS ACQ CONTEXT", concepts.MODALITY, modality),
        number("HAS ACQ CONTEXT", concepts.PIXEL_ROWS, source.rows, concepts.PIXELS),
        number("HAS ACQ CONTEXT", concepts.PIXEL_COLUMNS, source.columns, concepts.PIXELS),
    ]
    if source.orientation and source.spacing_mm:
        rows, columns = source.orientation
        between_rows, between_columns = source.spacing_mm
        described += [
            text("HAS ACQ CONTEXT", concepts.ORIENTATION_OF_ROWS, rows),
            text("HAS ACQ CONTEXT", concepts.ORIENTATION_OF_COLUMNS, columns),
            _spacing(concepts.HORIZONTAL_SPACING, between_columns),
            _spacing(concepts.VERTICAL_SPACING, between_rows),
        ]
    return image("CONTAINS", concepts.SOURCE, _reference(source), described)


def _spacing(name: Code, millimetres: float) -> Item:
    return number("HAS ACQ CONTEXT", name, millimetres, concepts.MILLIMETRE)


def _reference(source: Source) -> Item:
    return instance_reference(source.sop_class_uid, source.sop_instance_uid)


def _group(source: Source, content: AssessedContent) -> list[Item]:
    words = wording(content.language)
    hand = words.text("hand", content.laterality)
    side = concepts.LATERALITIES.get(content.laterality)
    sides = [code("HAS CONCEPT MOD", concepts.LATERALITY, side)] if side else []
    return [
        text(
            "HAS OBS CONTEXT",
            concepts.TRACKING_IDENTIFIER,
            words.text("finding", "tracking", hand=hand),
        ),
        uid("HAS OBS CONTEXT", concepts.TRACKING_UID, report_uid(source, content, "tracking")),
        code("HAS CONCEPT MOD", concepts.FINDING_SITE, concepts.HAND, sides),
        *_algorithm(content),
        *_measurements(content),
        code("CONTAINS", concepts.DETERMINATION, _determination(content)),
        _region(source, content.hand_box),
    ]


def _measurements(content: AssessedContent) -> Iterator[Item]:
    months = concepts.MONTH
    # OHIF prints the first five on the radiograph
    yield _measurement(
        concepts.BONE_AGE, content.bone_age_months, months, method=concepts.GREULICH_PYLE
    )
    yield _measurement(
        concepts.UNCERTAINTY, content.sd_months, months, derivation=concepts.STANDARD_DEVIATION
    )
    for concept, value, unit in (
        (concepts.CHRONOLOGICAL_AGE, content.chronological_age_months, months),
        (concepts.DIFFERENCE, content.difference_months, months),
        (concepts.Z_SCORE, content.z_score, concepts.NO_UNITS),
        (concepts.POPULATION_SD, content.population_sd_months, months),
    ):
        if value is not None:
            yield _measurement(concept, value, unit)
    if content.priors:
        yield from _comparison(content, content.priors[-1])


def _comparison(content: AssessedContent, prior: Prior) -> Iterator[Item]:
    """The last earlier exam; two versions of a model have no change between them."""
    months = concepts.MONTH
    yield _measurement(concepts.PRIOR_BONE_AGE, prior.bone_age_months, months)
    yield _measurement(concepts.PRIOR_INTERVAL, prior.months_before, months)
    if prior.same_model:
        change = content.bone_age_months - prior.bone_age_months
        yield _measurement(concepts.BONE_AGE_CHANGE, change, months)


def _measurement(
    name: Code,
    value: float,
    unit: Code,
    *,
    method: Code | None = None,
    derivation: Code | None = None,
) -> Item:
    """One number (TID 300), to two decimals: viewers print what is there."""
    if not math.isfinite(value):
        raise InvalidContent(f"{name.meaning} is not a number")
    qualified = [
        code("HAS CONCEPT MOD", concept, value)
        for concept, value in ((concepts.METHOD, method), (concepts.DERIVATION, derivation))
        if value
    ]
    return number("CONTAINS", name, round(value, 2), unit, qualified)


def _determination(content: AssessedContent) -> Code:
    code = concepts.DETERMINATIONS.get(content.determination)
    if code is None:
        raise InvalidContent(f"no code for the determination {content.determination!r}")
    return code


def _algorithm(content: AssessedContent) -> Iterator[Item]:
    """What measured (TID 4019)."""
    model = content.model
    for concept, said in (
        (concepts.ALGORITHM_NAME, model.name),
        (concepts.ALGORITHM_VERSION, model.version),
        (concepts.ALGORITHM_PARAMETERS, f"weights SHA-256: {model.sha256}"),
        (
            concepts.ALGORITHM_PARAMETERS,
            f"reference table: {content.reference_id} ({content.reference_title})",
        ),
    ):
        yield text("HAS CONCEPT MOD", concept, said)
    yield code("HAS CONCEPT MOD", concepts.ALGORITHM_FAMILY, concepts.ARTIFICIAL_INTELLIGENCE)


def _region(source: Source, box: Box) -> Item:
    """The hand's box as a closed polyline of five points (column, row), within the image."""
    left, right = max(0.0, box.left), min(float(source.columns), box.right)
    top, bottom = max(0.0, box.top), min(float(source.rows), box.bottom)
    if not (left < right and top < bottom):
        raise InvalidContent(
            f"the hand's box lies outside the image of {source.rows} rows and "
            f"{source.columns} columns"
        )
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    taken_from = image("SELECTED FROM", concepts.SOURCE, _reference(source))
    return polyline(concepts.IMAGE_REGION, corners, taken_from)
