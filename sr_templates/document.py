"""What all objects of a report share: identity, marks, UIDs, revision and encoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from io import BytesIO
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
from pydicom.charset import encode_string, python_encoding
from pydicom.config import RAISE, settings
from pydicom.dataset import Dataset
from pydicom.valuerep import VR, PersonName

from sr_templates import concepts
from sr_templates.content import (
    AssessedContent,
    InvalidContent,
    NotAssessedContent,
    Predecessor,
    ReportContent,
)
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

_SR_CLASSES: dict[str, type[Comprehensive3DSR | EnhancedSR]] = {
    MEASUREMENTS.name: Comprehensive3DSR,
    NARRATIVE.name: EnhancedSR,
}
_ENCODED_BY_CHARACTER_SET = frozenset({VR.SH, VR.LO, VR.ST, VR.LT, VR.UC, VR.UT, VR.PN})
"""PS3.5 6.1.2.3."""


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
    if content.keep_character_set and _has_all_characters(document, source.character_set):
        document.SpecificCharacterSet = list(source.character_set)
    return document


_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")
"""The default repertoire (PS3.5 6.1.2.1); pydicom takes it for Latin-1, which reads more."""


def _has_all_characters(document: Dataset, character_set: tuple[str, ...]) -> bool:
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


def _texts(document: Dataset) -> Iterator[str]:
    for element in document.iterall():
        if element.VR in _ENCODED_BY_CHARACTER_SET and element.value:
            values = element.value if element.VM > 1 else [element.value]
            for value in values:
                yield from value.components if isinstance(value, PersonName) else [str(value)]


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
