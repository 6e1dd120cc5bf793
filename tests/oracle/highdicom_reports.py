"""How highdicom builds the SR documents of a report, and pydicom encodes them: what
`sr_templates` must write, byte for byte behind the file meta information."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from highdicom import ContributingEquipment
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
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
    Predecessor,
    Prior,
    ReportContent,
)
from sr_templates.document import MEASUREMENTS, NARRATIVE, DocumentKind, report_uid
from sr_templates.source import Source
from sr_templates.statements import statements
from sr_templates.uids import derived_uid
from sr_templates.wording import wording

_SR_CLASSES: dict[str, type[Comprehensive3DSR | EnhancedSR]] = {
    MEASUREMENTS.name: Comprehensive3DSR,
    NARRATIVE.name: EnhancedSR,
}


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


def language_item(content: ReportContent) -> LanguageOfContentItemAndDescendants:
    """The language of the texts (TID 1204)."""
    language = concepts.LANGUAGES[content.language]
    return LanguageOfContentItemAndDescendants(CodedConcept.from_code(language))


def device_observer(content: ReportContent) -> ObserverContext:
    """The installation of the software as observer (TID 1002, TID 1004)."""
    device = content.device
    return ObserverContext(
        observer_type=CodedConcept.from_code(concepts.DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", device.model_name, device.name),
            name=device.name,
            manufacturer_name=device.manufacturer,
            model_name=device.model_name,
        ),
    )


def build_document(
    kind: DocumentKind, root: Dataset, source: Source, content: ReportContent
) -> Dataset:
    """Put a content tree into a document with the source's identity and the marks of an
    unverified result by artificial intelligence, for research (PS3.3 C.17.2).

    ``content.reported_at`` must be in the time zone that the source states, if it states one.
    """
    document: Dataset = _SR_CLASSES[kind.name](
        evidence=[evidence(source)],
        content=root,
        is_complete=True,
        is_verified=False,
        is_final=False,
        **instance_arguments(kind, source, content),
    )
    replaced = _studies(_replaced_by(kind, content))
    if replaced:
        document.PredecessorDocumentsSequence = replaced
    return marked(document, source, content)


def instance_arguments(
    kind: DocumentKind, source: Source, content: ReportContent
) -> dict[str, Any]:
    """What highdicom needs for the modules of every object: series, equipment and SOP Common. A
    revised object stands in the series of the one that it replaces, within the same study."""
    moment = _moment(content)
    series = next(
        (
            p.series_instance_uid
            for p in content.predecessors
            if p.kind == kind.name and p.study_instance_uid == source.study_instance_uid
        ),
        report_uid(source, content, f"{kind.name} series"),
    )
    return {
        "sop_instance_uid": report_uid(source, content, kind.name),
        "instance_number": content.revision,
        "content_qualification": "RESEARCH",
        "specific_character_set": "ISO_IR 192",
        "content_date": moment.date(),
        "content_time": moment.time(),
        "series_instance_uid": series,
        "series_number": kind.series_number,
        "series_description": wording(content.language).text("series", kind.name),
        "series_date": moment.date(),
        "series_time": moment.time(),
        **_equipment(content),
    }


def marked(document: Dataset, source: Source, content: ReportContent) -> Dataset:
    """The document with the source's identity, its origin and its character set."""
    document.InstanceCreationDate = document.ContentDate
    document.InstanceCreationTime = document.ContentTime
    document.ContributingEquipmentSequence = [_contribution(content, _moment(content))]
    if content.synthetic:
        document.SyntheticData = "YES"
    document.update(source.identity)
    return document


def _replaced_by(kind: DocumentKind, content: ReportContent) -> list[Predecessor]:
    """The SR documents that this one replaces: its own kind; and measurements by the narrative
    where there are none any more."""
    kinds = {kind.name}
    if kind == NARRATIVE and not isinstance(content, AssessedContent):
        kinds.add(MEASUREMENTS.name)
    return [p for p in content.predecessors if p.kind in kinds]


def _studies(predecessors: list[Predecessor]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    if not predecessors:
        return []
    study = Dataset()  # all documents of one report stand in one study
    study.StudyInstanceUID = predecessors[0].study_instance_uid
    study.ReferencedSeriesSequence = [_series_reference(p) for p in predecessors]
    return [study]


def _series_reference(predecessor: Predecessor) -> Dataset:
    instance, series = Dataset(), Dataset()
    instance.ReferencedSOPClassUID = predecessor.sop_class_uid
    instance.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
    series.SeriesInstanceUID = predecessor.series_instance_uid
    series.ReferencedSOPSequence = [instance]
    return series


def _moment(content: ReportContent) -> datetime:
    return content.reported_at.replace(microsecond=0)


def evidence(source: Source) -> Dataset:
    """The source as highdicom needs it: nothing missing, nothing about the patient.

    highdicom describes every CR and DX by orientation and spacing (TID 1603) and fails without
    them; an image that lacks one of them is described without both.
    """
    image = Dataset()
    for element in source.identity:
        image.add_new(element.tag, element.VR, None)
    image.PatientBirthDate = ""
    image.SOPClassUID = source.sop_class_uid
    image.SOPInstanceUID = source.sop_instance_uid
    image.StudyInstanceUID = source.study_instance_uid
    image.SeriesInstanceUID = source.series_instance_uid
    image.Rows = source.rows
    image.Columns = source.columns
    image.Modality = "OT"
    if source.orientation and source.spacing_mm:
        image.Modality = "DX"
        image.PatientOrientation = list(source.orientation)
        image.ImagerPixelSpacing = list(source.spacing_mm)
    return image


def _equipment(content: ReportContent) -> dict[str, Any]:
    device = content.device
    return {
        "manufacturer": device.manufacturer,
        "manufacturer_model_name": device.model_name,
        "device_serial_number": device.name,
        "software_versions": device.software_version,
    }


def _contribution(content: ReportContent, moment: datetime) -> ContributingEquipment:
    return ContributingEquipment(
        purpose_of_reference=concepts.PROCESSING_EQUIPMENT,
        contribution_datetime=moment,
        contribution_description=wording(content.language).text("notice", "contribution"),
        **_equipment(content),
    )
