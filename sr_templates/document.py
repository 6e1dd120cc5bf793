"""What all objects of a report share: identity, marks, UIDs, revision and encoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from pydicom.uid import Comprehensive3DSRStorage, EnhancedSRStorage

from sr_templates import concepts
from sr_templates.content import (
    AssessedContent,
    InvalidContent,
    NotAssessedContent,
    Predecessor,
    ReportContent,
)
from sr_templates.content_items import code, coded, instance_reference, text, uid
from sr_templates.encoding import UTF_8, Item, has_all_characters
from sr_templates.source import Source
from sr_templates.uids import derived_uid
from sr_templates.wording import wording

TEMPLATE_VERSION = "4"
"""Part of every UID: raise it with any change of what the reports say or how they are built."""


@dataclass(frozen=True, kw_only=True)
class DocumentKind:
    """One of the objects; ``name`` is also the key of its series description."""

    name: str
    series_number: int


MEASUREMENTS = DocumentKind(name="measurements", series_number=901)
NARRATIVE = DocumentKind(name="narrative", series_number=902)
CAPTURE = DocumentKind(name="capture", series_number=903)
PDF = DocumentKind(name="pdf", series_number=904)

_SR_CLASSES = {MEASUREMENTS.name: Comprehensive3DSRStorage, NARRATIVE.name: EnhancedSRStorage}


def report_uid(source: Source, content: ReportContent, purpose: str) -> str:
    """A UID of this report: another source, model, statement, template or revision gives another
    one, another time or another drawing does not."""
    revision = (f"revision {content.revision}",) if content.revision > 1 else ()
    return derived_uid(
        source.sop_instance_uid,
        content.content_sha256,
        *_stated(content),
        content.language,
        TEMPLATE_VERSION,
        *revision,
        purpose,
    )


def language_item(content: ReportContent) -> Item:
    """The language of the texts (TID 1204)."""
    return code("HAS CONCEPT MOD", concepts.LANGUAGE, concepts.LANGUAGES[content.language])


def device_observer(content: ReportContent) -> list[Item]:
    """The installation of the software as observer (TID 1002, TID 1004)."""
    device = content.device
    identifier = derived_uid("device", device.model_name, device.name)
    return [
        code("HAS OBS CONTEXT", concepts.OBSERVER_TYPE, concepts.DEVICE),
        uid("HAS OBS CONTEXT", concepts.DEVICE_UID, identifier),
        text("HAS OBS CONTEXT", concepts.DEVICE_NAME, device.name),
        text("HAS OBS CONTEXT", concepts.DEVICE_MANUFACTURER, device.manufacturer),
        text("HAS OBS CONTEXT", concepts.DEVICE_MODEL_NAME, device.model_name),
    ]


def sr_document(kind: DocumentKind, tree: Item, source: Source, content: ReportContent) -> Item:
    """Put a content tree into a document with the source's identity and the marks of an
    unverified result by artificial intelligence, for research (PS3.3 C.17.2).

    ``content.reported_at`` must be in the time zone that the source states, if it states one.
    """
    replaced = _study_reference(_replaced_by(kind, content))
    if replaced:
        tree["PredecessorDocumentsSequence"] = [replaced]
    return instance(
        kind,
        source,
        content,
        tree
        | {
            "SOPClassUID": _SR_CLASSES[kind.name],
            "Modality": "SR",
            "CompletionFlag": "COMPLETE",
            "VerificationFlag": "UNVERIFIED",
            "PreliminaryFlag": "PRELIMINARY",
            "ReferencedPerformedProcedureStepSequence": [],
            "PerformedProcedureCodeSequence": [],
            "CurrentRequestedProcedureEvidenceSequence": [_evidence(source)],
        },
    )


def instance(kind: DocumentKind, source: Source, content: ReportContent, document: Item) -> Item:
    """The document with the modules that every object has: patient, study, series, equipment and
    SOP Common. A revised object stands in the series of the one that it replaces, within the same
    study."""
    series = next(
        (
            p.series_instance_uid
            for p in content.predecessors
            if p.kind == kind.name and p.study_instance_uid == source.study_instance_uid
        ),
        report_uid(source, content, f"{kind.name} series"),
    )
    day, time = content.reported_at.strftime("%Y%m%d %H%M%S").split()
    whole: Item = {
        **document,
        **_equipment(content),
        "SpecificCharacterSet": UTF_8,
        "InstanceCreationDate": day,
        "InstanceCreationTime": time,
        "SOPInstanceUID": report_uid(source, content, kind.name),
        "SeriesDate": day,
        "SeriesTime": time,
        "ContentDate": day,
        "ContentTime": time,
        "SeriesDescription": wording(content.language).text("series", kind.name),
        "ContentQualification": "RESEARCH",
        "ContributingEquipmentSequence": [_contribution(content)],
        "StudyInstanceUID": source.study_instance_uid,
        "SeriesInstanceUID": series,
        "SeriesNumber": kind.series_number,
        "InstanceNumber": content.revision,
        **{element.keyword: element for element in source.identity},
    }
    if content.synthetic:
        whole["SyntheticData"] = "YES"
    if content.keep_character_set and has_all_characters(whole, source.character_set):
        whole["SpecificCharacterSet"] = list(source.character_set)
    return whole


def _replaced_by(kind: DocumentKind, content: ReportContent) -> list[Predecessor]:
    """The SR documents that this one replaces: its own kind; and measurements by the narrative
    where there are none any more."""
    kinds = {kind.name}
    if kind == NARRATIVE and not isinstance(content, AssessedContent):
        kinds.add(MEASUREMENTS.name)
    return [p for p in content.predecessors if p.kind in kinds]


def _study_reference(predecessors: list[Predecessor]) -> Item | None:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1); all documents of one report
    stand in one study."""
    if not predecessors:
        return None
    series = [
        _series_reference(p.series_instance_uid, p.sop_class_uid, p.sop_instance_uid)
        for p in predecessors
    ]
    return {
        "StudyInstanceUID": predecessors[0].study_instance_uid,
        "ReferencedSeriesSequence": series,
    }


def _evidence(source: Source) -> Item:
    series = _series_reference(
        source.series_instance_uid, source.sop_class_uid, source.sop_instance_uid
    )
    return {"StudyInstanceUID": source.study_instance_uid, "ReferencedSeriesSequence": [series]}


def _series_reference(series: str, sop_class: str, sop_instance: str) -> Item:
    return {
        "SeriesInstanceUID": series,
        "ReferencedSOPSequence": [instance_reference(sop_class, sop_instance)],
    }


_NOT_STATED = frozenset(
    {
        "device",
        "content_sha256",
        "language",
        "reported_at",
        "revision",
        "predecessors",
        "keep_character_set",
        "hand_box",
        "saliency",
        "reference_sd_months",
    }
)
"""Fields of a content that are no statement about the patient, stand in the UID by themselves or
follow from the image and the model."""


def _stated(content: ReportContent) -> Iterator[str]:
    """Every statement of the content, numbers as exact as a report gives them (two decimals)."""
    if not isinstance(content, AssessedContent | NotAssessedContent):
        raise InvalidContent(f"{type(content).__name__} has no report")
    for field in fields(content):
        if field.name not in _NOT_STATED:
            yield f"{field.name}={_exact(getattr(content, field.name))}"


def _exact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, tuple):
        return f"({','.join(_exact(item) for item in value)})"
    if is_dataclass(value):
        return _exact(tuple(getattr(value, field.name) for field in fields(value)))
    return str(value)


def _equipment(content: ReportContent) -> Item:
    device = content.device
    return {
        "Manufacturer": device.manufacturer,
        "ManufacturerModelName": device.model_name,
        "DeviceSerialNumber": device.name,
        "SoftwareVersions": device.software_version,
    }


def _contribution(content: ReportContent) -> Item:
    return {
        **_equipment(content),
        "PurposeOfReferenceCodeSequence": [coded(concepts.PROCESSING_EQUIPMENT)],
        "ContributionDateTime": content.reported_at.strftime("%Y%m%d%H%M%S%z"),
        "ContributionDescription": wording(content.language).text("notice", "contribution"),
    }
