"""How highdicom builds the SR documents of a report, and pydicom encodes them: what
`sr_templates` must write, byte for byte behind the file meta information; see
`sr_templates/judge.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from io import BytesIO

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from sr_templates import concepts
from sr_templates.content import (
    AssessedContent,
    Box,
    InvalidContent,
    NotAssessedContent,
    Prior,
    ReportContent,
)
from sr_templates.document import MEASUREMENTS, NARRATIVE, report_uid
from sr_templates.highdicom_documents import (
    build_document,
    device_observer,
    evidence,
    language_item,
)
from sr_templates.source import Source
from sr_templates.statements import statements
from sr_templates.wording import wording


def build_measurement_report(source: Source, content: AssessedContent) -> Dataset:
    """The whole document. Raises :class:`InvalidContent` for numbers that are not finite, a box
    outside the image or codes without a text."""
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device_observer(content)),
        procedure_reported=concepts.IMAGING_PROCEDURE,
        imaging_measurements=[_group(source, content)],
        title=concepts.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=language_item(content),
        referenced_images=[evidence(source)],
    )
    document = build_document(MEASUREMENTS, report[0], source, content)
    document.CodingSchemeIdentificationSequence = [_private_scheme(content)]
    return document


def build_narrative(source: Source, content: ReportContent) -> Dataset:
    """The whole document. Raises :class:`InvalidContent` for codes without a text."""
    said = statements(content)
    root = ContainerContentItem(
        concepts.DIAGNOSTIC_IMAGING_REPORT, is_content_continuous=False, template_id="2000"
    )
    root.ContentSequence = ContentSequence(
        [
            *language_item(content),
            *device_observer(content),
            _section(
                concepts.PROCEDURE_DESCRIPTIONS,
                _texts(concepts.PROCEDURE_DESCRIPTION, (*said.notices, *said.examination)),
            ),
            _section(
                concepts.FINDINGS,
                [*_texts(concepts.FINDING, said.findings), *_coded_reasons(content)],
            ),
            _section(
                concepts.IMPRESSIONS,
                _texts(concepts.IMPRESSION, (*said.conclusion, *said.notices)),
            ),
        ]
    )
    return build_document(NARRATIVE, root, source, content)


def encoded(document: Dataset, character_set: object) -> bytes:
    """The data set, Explicit VR Little Endian, in a Specific Character Set (0008,0005)."""
    document.SpecificCharacterSet = character_set
    with BytesIO() as file:
        document.save_as(file, enforce_file_format=True)
        return data_set(file.getvalue())


def data_set(file: bytes) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def _private_scheme(content: AssessedContent) -> CodingSchemeIdentificationItem:
    """Whose the private designator is (PS3.3 C.12.1.1.9)."""
    return CodingSchemeIdentificationItem(
        designator=concepts.PRIVATE_SCHEME,
        name=concepts.PRIVATE_SCHEME_NAME,
        responsible_organization=content.device.manufacturer,
    )


def _group(
    source: Source, content: AssessedContent
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    words = wording(content.language)
    hand = words.text("hand", content.laterality)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=report_uid(source, content, "tracking"),
            identifier=words.text("finding", "tracking", hand=hand),
        ),
        referenced_region=_region(source, content.hand_box),
        finding_sites=[
            FindingSite(concepts.HAND, laterality=concepts.LATERALITIES.get(content.laterality))
        ],
        algorithm_id=_algorithm(content),
        measurements=list(_measurements(content)),
        qualitative_evaluations=[
            QualitativeEvaluation(concepts.DETERMINATION, _determination(content))
        ],
    )


def _measurements(content: AssessedContent) -> Iterator[Measurement]:
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


def _comparison(content: AssessedContent, prior: Prior) -> Iterator[Measurement]:
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
) -> Measurement:
    """One number (TID 300), to two decimals: viewers print what is there."""
    if not math.isfinite(value):
        raise InvalidContent(f"{name.meaning} is not a number")
    return Measurement(name, round(value, 2), unit, method=method, derivation=derivation)


def _determination(content: AssessedContent) -> Code:
    code = concepts.DETERMINATIONS.get(content.determination)
    if code is None:
        raise InvalidContent(f"no code for the determination {content.determination!r}")
    return code


def _algorithm(content: AssessedContent) -> AlgorithmIdentification:
    model = content.model
    return AlgorithmIdentification(
        name=model.name,
        version=model.version,
        family=concepts.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"weights SHA-256: {model.sha256}",
            f"reference table: {content.reference_id} ({content.reference_title})",
        ],
    )


def _region(source: Source, box: Box) -> ImageRegion:
    """The hand's box as a closed polyline of five points (column, row), within the image."""
    left, right = max(0.0, box.left), min(float(source.columns), box.right)
    top, bottom = max(0.0, box.top), min(float(source.rows), box.bottom)
    if not (left < right and top < bottom):
        raise InvalidContent(
            f"the hand's box lies outside the image of {source.rows} rows and "
            f"{source.columns} columns"
        )
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return ImageRegion(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=np.asarray(corners, dtype=np.float32),
        source_image=SourceImageForRegion(source.sop_class_uid, source.sop_instance_uid),
    )


def _section(heading: Code, items: Iterable[ContentItem]) -> ContainerContentItem:
    section = ContainerContentItem(
        heading, is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS
    )
    section.ContentSequence = ContentSequence(list(items))
    return section


def _texts(name: Code, sentences: Iterable[str]) -> list[ContentItem]:
    return [
        TextContentItem(name, sentence, relationship_type=RelationshipTypeValues.CONTAINS)
        for sentence in sentences
    ]


def _coded_reasons(content: ReportContent) -> list[ContentItem]:
    """Status of the analysis (CID 6042) and, where it has one, the reason of CID 7011."""
    if not isinstance(content, NotAssessedContent):
        return []
    failed = content.reason in concepts.ANALYSIS_FAILURES
    codes = [concepts.FAILED if failed else concepts.NOT_ATTEMPTED]
    codes += [concepts.REJECTIONS[r] for r in (content.reason,) if r in concepts.REJECTIONS]
    return [
        CodeContentItem(concepts.FINDING, code, relationship_type=RelationshipTypeValues.CONTAINS)
        for code in codes
    ]
