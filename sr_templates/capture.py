"""The picture as a Secondary Capture Image (PS3.3 A.8), for viewers that show no SR.

JPEG Baseline (PS3.5 8.2.1): a fifteenth of the size of its pixels, and every viewer decodes it. The
sender decodes it for a destination that does not.
"""

from __future__ import annotations

from io import BytesIO

from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from sr_templates import concepts
from sr_templates.content import ReportContent
from sr_templates.document import CAPTURE, instance_arguments, marked
from sr_templates.source import Source
from sr_templates.wording import wording

_QUALITY = 92
_SUBSAMPLING_4_2_2 = 1
"""Chrominance at half the columns: what YBR_FULL_422 means (PS3.3 C.7.6.3.1.2)."""


def build_capture(source: Source, content: ReportContent, picture: Image.Image) -> Dataset:
    """The whole object. ``picture``: RGB, as :func:`sr_templates.picture.annotate` draws it."""
    document = SOPClass(
        study_instance_uid=source.study_instance_uid,
        sop_class_uid=SecondaryCaptureImageStorage,
        transfer_syntax_uid=JPEGBaseline8Bit,
        modality="OT",
        **instance_arguments(CAPTURE, source, content),
    )
    document.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    document.ConversionType = "WSD"
    document.DateOfSecondaryCapture = document.ContentDate
    document.TimeOfSecondaryCapture = document.ContentTime
    document.BurnedInAnnotation = "YES"
    document.PatientOrientation = None
    document.Laterality = source.laterality
    document.SourceImageSequence = [source_reference(source)]
    document.DerivationDescription = wording(content.language).text("notice", "contribution")
    _set_pixels(document, picture)
    return marked(document, source, content)


def source_reference(source: Source) -> Dataset:
    """The radiograph that the picture was made from (PS3.3 10.3 and C.7.6.1.1.4)."""
    image = Dataset()
    image.ReferencedSOPClassUID = source.sop_class_uid
    image.ReferencedSOPInstanceUID = source.sop_instance_uid
    image.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(concepts.SOURCE_IMAGE)]
    return image


def _set_pixels(document: Dataset, picture: Image.Image) -> None:
    """Image Pixel (PS3.3 C.7.6.3) and what lossy compression must say (C.7.6.1.1.5)."""
    with BytesIO() as file:
        picture.save(file, "JPEG", quality=_QUALITY, subsampling=_SUBSAMPLING_4_2_2)
        coded = file.getvalue()
    document.Rows, document.Columns = picture.height, picture.width
    document.SamplesPerPixel = 3
    document.PhotometricInterpretation = "YBR_FULL_422"
    document.PlanarConfiguration = 0
    document.BitsAllocated = document.BitsStored = 8
    document.HighBit = 7
    document.PixelRepresentation = 0
    document.LossyImageCompression = "01"
    ratio = 3 * picture.width * picture.height / len(coded)
    document.LossyImageCompressionRatio = f"{ratio:.2f}"
    document.LossyImageCompressionMethod = "ISO_10918_1"
    document.PixelData = encapsulate([coded])
    document["PixelData"].is_undefined_length = True
