"""The port Reporter on ``sr_templates``: our words to plain content, content to encoded objects.

highdicom takes most of a second to import: it is loaded with the first report, not with this
module.
"""

from __future__ import annotations

import struct
import warnings
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from dicom_node import __version__
from dicom_node.domain.assessment import Assessment, HandBox, ModelIdentity, Saliency
from dicom_node.domain.delivery import ReportKind, ReportObject
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE, PRODUCT_NAME, Reason
from dicom_node.domain.errors import Fault, Permanent
from dicom_node.ports import ReportRequest
from sr_templates.content import (
    AssessedContent,
    Box,
    Device,
    Heatmap,
    InvalidContent,
    Model,
    NotAssessedContent,
    ReportContent,
)
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


class SrReporter:
    """Builds the Structured Reports of an exam and the annotated picture for people at a console.

    ``device_name``: this installation, at most 64 characters without backslash.
    """

    def __init__(self, *, device_name: str = PRODUCT_NAME) -> None:
        self._device = Device(
            name=device_name,
            manufacturer=MANUFACTURER,
            model_name=PRODUCT_NAME,
            software_version=__version__,
        )

    def warm(self) -> None:
        """Build a report of nothing now, so that the first real one does not wait for highdicom
        and its tables."""
        import_module("sr_templates.measurement_report")
        nothing = NotAssessedContent(
            device=self._device,
            content_sha256="",
            language="en",
            reported_at=datetime.now(UTC),
            synthetic=True,
            reason=Reason.IMAGE_BLANK.value,
        )
        _objects(read_source(_empty_radiograph()), nothing)

    def build(self, request: ReportRequest) -> tuple[ReportObject, ...]:
        """Encode the objects of one report: measurements and narrative of an assessment, the
        narrative alone of a reason.

        Raises ``Permanent``: UNREADABLE_OBJECT when no report can refer to the source image,
        REPORT_INVALID when its content cannot be encoded.
        """
        source = _source(request)
        try:
            with disable_value_validation():  # its warnings quote header values
                return _objects(source, self._content(request, source))
        except InvalidContent as error:
            raise Permanent(Fault.REPORT_INVALID, f"no report: {error}") from None
        except _UNBUILDABLE as error:
            raise Permanent(
                Fault.REPORT_INVALID,
                f"the report could not be built: {type(error).__name__}; keep the source object "
                "and report this as a defect",
            ) from None

    def picture(self, request: ReportRequest, pixels: NDArray[np.uint8]) -> Image:
        """Draw the radiograph with the hand's box, and the report's words beside it.

        ``pixels``: shape (Rows, Columns) of the source image, bright bones. Raises as
        :meth:`build`.
        """
        from sr_templates.picture import annotate

        source = _source(request)
        try:
            return annotate(pixels, self._content(request, source))
        except InvalidContent as error:
            raise Permanent(Fault.REPORT_INVALID, f"no picture: {error}") from None

    def _content(self, request: ReportRequest, source: Source) -> ReportContent:
        common: dict[str, Any] = {
            "device": self._device,
            "content_sha256": request.content_sha256,
            "language": request.language,
            "reported_at": source.local(request.reported_at.astimezone()),
            "synthetic": source.synthetic,
        }
        if isinstance(request.finding, Assessment):
            return AssessedContent(**common, **_assessed(request.finding))
        return NotAssessedContent(**common, reason=request.finding.value)


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
        "notes": tuple(note.value for note in assessment.notes),
    }


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


def _objects(source: Source, content: ReportContent) -> tuple[ReportObject, ...]:
    from sr_templates.measurement_report import build_measurement_report
    from sr_templates.narrative import build_narrative

    narrative = _encoded(ReportKind.NARRATIVE, build_narrative(source, content))
    if not isinstance(content, AssessedContent):
        return (narrative,)
    report = build_measurement_report(source, content)
    return _encoded(ReportKind.MEASUREMENTS, report), narrative


def _encoded(kind: ReportKind, document: Dataset) -> ReportObject:
    from sr_templates.document import encode

    return ReportObject(
        kind=kind,
        sop_class_uid=str(document.SOPClassUID),
        sop_instance_uid=str(document.SOPInstanceUID),
        series_instance_uid=str(document.SeriesInstanceUID),
        encoded=encode(document),
    )
