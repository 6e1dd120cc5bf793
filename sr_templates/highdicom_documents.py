"""How highdicom builds an SR document around a content tree; see `sr_templates/judge.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from highdicom import ContributingEquipment
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
)
from pydicom.dataset import Dataset

from sr_templates import concepts
from sr_templates.content import AssessedContent, Predecessor, ReportContent
from sr_templates.document import MEASUREMENTS, NARRATIVE, DocumentKind, report_uid
from sr_templates.source import Source
from sr_templates.uids import derived_uid
from sr_templates.wording import wording

_SR_CLASSES: dict[str, type[Comprehensive3DSR | EnhancedSR]] = {
    MEASUREMENTS.name: Comprehensive3DSR,
    NARRATIVE.name: EnhancedSR,
}


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
