"""What both Structured Reports share: identity, marks, UIDs and encoding (PS3.3 A.35)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any
from uuid import UUID, uuid5

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
from sr_templates.content import AssessedContent, InvalidContent, NotAssessedContent, ReportContent
from sr_templates.source import Source
from sr_templates.wording import wording

TEMPLATE_VERSION = "2"
"""Part of every UID: raise it with any change of what the reports say or how they are built."""

_NAMESPACE = UUID("1d1c4a1e-5d0c-4a58-9f0d-6c8b6a2f3e57")


@dataclass(frozen=True, kw_only=True)
class DocumentKind:
    """One of the two documents; ``name`` is also the key of its series description."""

    name: str
    series_number: int
    document_class: type[Comprehensive3DSR | EnhancedSR]


MEASUREMENTS = DocumentKind(
    name="measurements", series_number=901, document_class=Comprehensive3DSR
)
NARRATIVE = DocumentKind(name="narrative", series_number=902, document_class=EnhancedSR)


def derived_uid(*parts: str) -> str:
    """The UID of these parts under 2.25 (PS3.5 B.2): the same parts give the same UID."""
    return f"2.25.{uuid5(_NAMESPACE, '|'.join(parts)).int}"


def report_uid(source: Source, content: ReportContent, purpose: str) -> str:
    """A UID of this report: another source, model, finding or template gives another one."""
    return derived_uid(
        source.sop_instance_uid,
        content.content_sha256,
        *_subject(content),
        content.language,
        TEMPLATE_VERSION,
        purpose,
    )


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
    moment = content.reported_at.replace(microsecond=0)
    document: Dataset = kind.document_class(
        evidence=[evidence(source)],
        content=root,
        sop_instance_uid=report_uid(source, content, kind.name),
        instance_number=1,
        is_complete=True,
        is_verified=False,
        is_final=False,
        content_qualification="RESEARCH",
        specific_character_set="ISO_IR 192",
        content_date=moment.date(),
        content_time=moment.time(),
        **_series(kind, source, content, moment),
        **_equipment(content),
    )
    document.InstanceCreationDate = document.ContentDate
    document.InstanceCreationTime = document.ContentTime
    document.ContributingEquipmentSequence = [_contribution(content, moment)]
    if content.synthetic:
        document.SyntheticData = "YES"
    document.update(source.identity)
    return document


def encode(document: Dataset) -> bytes:
    """A complete DICOM file (PS3.10 7.1), Explicit VR Little Endian."""
    with BytesIO() as file:
        document.save_as(file, enforce_file_format=True)
        return file.getvalue()


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


def _subject(content: ReportContent) -> tuple[str, ...]:
    if isinstance(content, AssessedContent):
        model = content.model
        return model.name, model.version, model.sha256, content.reference_id
    if isinstance(content, NotAssessedContent):
        return ("not assessed", content.reason)
    raise InvalidContent(f"{type(content).__name__} has no report")


def _series(
    kind: DocumentKind, source: Source, content: ReportContent, moment: datetime
) -> dict[str, Any]:
    return {
        "series_instance_uid": report_uid(source, content, f"{kind.name} series"),
        "series_number": kind.series_number,
        "series_description": wording(content.language).text("series", kind.name),
        "series_date": moment.date(),
        "series_time": moment.time(),
    }


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
