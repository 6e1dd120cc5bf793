"""The port Reporter on ``sr_templates``: our words to plain content, content to encoded objects."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_node import __version__
from dicom_node.domain.assessment import (
    DAYS_PER_MONTH,
    Assessment,
    HandBox,
    ModelIdentity,
    PriorResult,
    Saliency,
)
from dicom_node.domain.delivery import DRAWN, PreviousReport, ReportKind, ReportObject
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE, PRODUCT_NAME, Reason
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.logs import log
from dicom_node.ports import ReportRequest
from inference.decode import Decode, UnreadablePixels, decode
from inference.display import display_pixels
from sr_templates.concepts import ANALYSIS_FAILURES
from sr_templates.content import (
    AssessedContent,
    Box,
    Device,
    Heatmap,
    InvalidContent,
    Model,
    NotAssessedContent,
    Predecessor,
    Prior,
    ReportContent,
)
from sr_templates.document import report_uid
from sr_templates.encoding import Item, encode_file
from sr_templates.measurement_report import build_measurement_report
from sr_templates.narrative import build_narrative
from sr_templates.source import Source, UnusableSource, read_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MANUFACTURER = "boneage-node project"
"""Manufacturer (0008,0070) of everything the node makes."""

_UNREADABLE = (
    InvalidDicomError,
    OSError,
    EOFError,
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What pydicom raises on broken files."""
_UNBUILDABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


_FOUND_IN_PIXELS = ANALYSIS_FAILURES - {Reason.PIXELS_UNREADABLE}
"""Reasons of images that were decoded: others may be broken or huge, and are not drawn."""


class SrReporter:
    """Builds the objects of an exam's report and the annotated picture for people at a console.

    ``device_name``: this installation, at most 64 characters without backslash. ``decode``: what
    makes grey levels of a file.
    """

    def __init__(self, *, device_name: str = PRODUCT_NAME, decode: Decode = decode) -> None:
        self._decode = decode
        self._device = Device(
            name=device_name,
            manufacturer=MANUFACTURER,
            model_name=PRODUCT_NAME,
            software_version=__version__,
        )

    def warm(self, kinds: frozenset[ReportKind]) -> None:
        """Build a report of nothing now, so that the first real one of these kinds does not wait
        for tables, or for what draws."""
        nothing = NotAssessedContent(
            device=self._device,
            content_sha256="",
            language="en",
            reported_at=datetime.now(UTC),
            synthetic=True,
            reason=Reason.IMAGE_BLANK.value,
        )
        source = read_source(_empty_radiograph())
        _documents(source, nothing, kinds)
        list(_drawn(source, nothing, kinds, None))

    def build(self, request: ReportRequest) -> tuple[ReportObject, ...]:
        """Encode the wanted objects of one report; without a bone age there are no measurements,
        and what cannot be drawn does not hold up what is written. What says the same as
        ``request.previous`` is that report, not another one.

        Raises ``Permanent``: UNREADABLE_OBJECT when no report can refer to the source image,
        REPORT_INVALID when its content cannot be encoded.
        """
        source = _source(request)
        try:
            with disable_value_validation():  # its warnings quote header values
                content = self._content(request, source)
                return _unchanged(request, source, content) or self._objects(
                    request, source, content
                )
        except InvalidContent as error:
            raise Permanent(Fault.REPORT_INVALID, f"no report: {error}") from None
        except _UNBUILDABLE as error:
            raise Permanent(
                Fault.REPORT_INVALID,
                f"the report could not be built: {type(error).__name__}; keep the source object "
                "and report this as a defect",
            ) from None

    def picture(self, request: ReportRequest) -> Image:
        """Draw the radiograph with the hand's box, and the report's words and the growth chart
        beside it. Raises as :meth:`build`."""
        from sr_templates.picture import annotate, radiograph

        source = _source(request)
        try:
            content = self._content(request, source)
            return annotate(
                radiograph(display_pixels(request.path, self._decode), content), content
            )
        except InvalidContent as error:
            raise Permanent(Fault.REPORT_INVALID, f"no picture: {error}") from None

    def _content(self, request: ReportRequest, source: Source) -> ReportContent:
        common: dict[str, Any] = {
            "device": self._device,
            "content_sha256": request.content_sha256,
            "language": request.language,
            "reported_at": source.local(request.reported_at.astimezone()),
            "synthetic": source.synthetic,
            "keep_character_set": request.keep_character_set,
        }
        if request.previous is not None:
            common["revision"] = request.previous.revision + 1
            common["predecessors"] = _predecessors(request.previous)
        if isinstance(request.finding, Assessment):
            return AssessedContent(**common, **_assessed(request.finding))
        return NotAssessedContent(**common, reason=request.finding.value)

    def _objects(
        self, request: ReportRequest, source: Source, content: ReportContent
    ) -> tuple[ReportObject, ...]:
        """All wanted objects; what is drawn may be missing where something is written."""
        kinds = _kinds(request)
        written = _documents(source, content, kinds)
        if not DRAWN & kinds:
            return written
        try:
            return (*written, *_drawn(source, content, kinds, self._shown(request)))
        except Exception as error:  # the ways in which drawing can fail are many
            if not written:
                raise
            log("picture_not_drawn", error=error)
            return written

    def _shown(self, request: ReportRequest) -> NDArray[np.uint8] | None:
        """The radiograph for a picture, if its pixels have been read before."""
        finding = request.finding
        if isinstance(finding, Reason) and finding not in _FOUND_IN_PIXELS:
            return None
        try:
            return display_pixels(request.path, self._decode)
        except UnreadablePixels:  # a report without its image is better than none
            return None


def _empty_radiograph() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CR_IMAGE_STORAGE
    dataset.SOPInstanceUID = dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "2.25.1"
    dataset.Modality = "CR"
    dataset.Rows = dataset.Columns = 1
    return dataset


def _assessed(assessment: Assessment) -> dict[str, Any]:
    prediction = assessment.prediction
    return {
        "model": _model(prediction.model),
        "hand_box": _box(prediction.hand_box),
        "saliency": _heatmap(prediction.saliency) if prediction.saliency else None,
        "bone_age_months": prediction.bone_age_months,
        "sd_months": prediction.sd_months,
        "sex": assessment.sex.value,
        "laterality": assessment.laterality.value,
        "view_position": assessment.view_position,
        "chronological_age_months": assessment.chronological_age_months,
        "difference_months": assessment.difference_months,
        "population_sd_months": assessment.population_sd_months,
        "z_score": assessment.z_score,
        "determination": assessment.determination.value,
        "reference_id": assessment.reference_id,
        "reference_title": assessment.reference_title,
        "reference_sd_months": assessment.reference_sd_months,
        "notes": tuple(note.value for note in assessment.notes),
        "priors": tuple(_priors(assessment)),
    }


def _priors(assessment: Assessment) -> Iterator[Prior]:
    if assessment.study_date is not None:
        for prior in assessment.priors:
            yield _prior(prior, assessment.prediction.model, assessment.study_date)


def _prior(prior: PriorResult, model: ModelIdentity, study_date: date) -> Prior:
    return Prior(
        study_date=prior.study_date,
        months_before=(study_date - prior.study_date).days / DAYS_PER_MONTH,
        chronological_age_months=prior.chronological_age_months,
        bone_age_months=prior.bone_age_months,
        same_model=prior.model == model,
    )


def _predecessors(previous: PreviousReport) -> tuple[Predecessor, ...]:
    return tuple(
        Predecessor(
            kind=made.kind.value,
            sop_class_uid=made.sop_class_uid,
            sop_instance_uid=made.sop_instance_uid,
            series_instance_uid=made.series_instance_uid,
            study_instance_uid=previous.study_instance_uid,
        )
        for made in previous.objects
    )


def _unchanged(
    request: ReportRequest, source: Source, content: ReportContent
) -> tuple[ReportObject, ...]:
    """The previous report if it is of the same inputs, which give the same UIDs, and was not
    purged; else nothing."""
    previous = request.previous
    if previous is None or not all(item.encoded for item in previous.objects):
        return ()
    before = replace(content, revision=previous.revision)
    made = {kind.value: report_uid(source, before, kind.value) for kind in _kinds(request)}
    known = {item.kind: item.sop_instance_uid for item in previous.objects}
    return previous.objects if made == known else ()


def _kinds(request: ReportRequest) -> frozenset[ReportKind]:
    """The wanted objects that there can be; who wants measurements only is told in words why there
    are none."""
    if isinstance(request.finding, Assessment):
        return request.kinds
    return request.kinds - {ReportKind.MEASUREMENTS} or frozenset({ReportKind.NARRATIVE})


def _model(model: ModelIdentity) -> Model:
    return Model(name=model.name, version=model.version, sha256=model.sha256)


def _box(box: HandBox) -> Box:
    return Box(left=box.left, top=box.top, right=box.right, bottom=box.bottom)


def _heatmap(saliency: Saliency) -> Heatmap:
    return Heatmap(box=_box(saliency.box), levels=saliency.levels)


def _source(request: ReportRequest) -> Source:
    name = f"object {request.content_sha256}"
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_source(dcmread(request.path, stop_before_pixels=True))
    except UnusableSource as error:
        raise Permanent(Fault.UNREADABLE_OBJECT, f"{name}: {error}") from None
    except _UNREADABLE as error:
        raise Permanent(
            Fault.UNREADABLE_OBJECT,
            f"{name} cannot be read as a DICOM file ({type(error).__name__}): send the image again",
        ) from None


def _documents(
    source: Source, content: ReportContent, kinds: frozenset[ReportKind]
) -> tuple[ReportObject, ...]:
    """The objects in words and numbers."""
    objects = []
    if isinstance(content, AssessedContent) and ReportKind.MEASUREMENTS in kinds:
        report = build_measurement_report(source, content)
        objects.append(_encoded(ReportKind.MEASUREMENTS, report))
    if ReportKind.NARRATIVE in kinds:
        objects.append(_encoded(ReportKind.NARRATIVE, build_narrative(source, content)))
    return tuple(objects)


def _drawn(
    source: Source,
    content: ReportContent,
    kinds: frozenset[ReportKind],
    pixels: NDArray[np.uint8] | None,
) -> Iterator[ReportObject]:
    """The objects that show the radiograph, which is drawn once for both."""
    if not DRAWN & kinds:  # nothing to import
        return
    from sr_templates.capture import build_capture
    from sr_templates.pdf import build_pdf
    from sr_templates.picture import annotate, radiograph

    shown = None if pixels is None else radiograph(pixels, content)
    if ReportKind.CAPTURE in kinds:
        capture = build_capture(source, content, annotate(shown, content))
        yield _encoded(ReportKind.CAPTURE, capture, transfer_syntax=JPEGBaseline8Bit)
    if ReportKind.PDF in kinds:
        yield _encoded(ReportKind.PDF, build_pdf(source, content, shown))


def _encoded(
    kind: ReportKind, document: Item, *, transfer_syntax: str = ExplicitVRLittleEndian
) -> ReportObject:
    return ReportObject(
        kind=kind,
        sop_class_uid=str(document["SOPClassUID"]),
        sop_instance_uid=str(document["SOPInstanceUID"]),
        series_instance_uid=str(document["SeriesInstanceUID"]),
        encoded=encode_file(document, transfer_syntax=transfer_syntax),
    )
