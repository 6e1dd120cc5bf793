"""The picture as a Secondary Capture Image (PS3.3 A.8), for viewers that show no SR.

JPEG Baseline (PS3.5 8.2.1): a fifteenth of the size of its pixels, and every viewer decodes it. The
sender decodes it for a destination that does not.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.uid import SecondaryCaptureImageStorage

from sr_templates import concepts
from sr_templates.content import ReportContent
from sr_templates.content_items import coded, instance_reference
from sr_templates.document import CAPTURE, instance
from sr_templates.encoding import Item
from sr_templates.source import Source
from sr_templates.wording import wording

_QUALITY = 92
_SUBSAMPLING_4_2_2 = 1
"""Chrominance at half the columns: what YBR_FULL_422 means (PS3.3 C.7.6.3.1.2)."""


def build_capture(source: Source, content: ReportContent, picture: Image.Image) -> Item:
    """The whole object. ``picture``: RGB, as :func:`sr_templates.picture.annotate` draws it."""
    document: Item = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "Modality": "OT",
        "ImageType": "DERIVED\\SECONDARY\\OTHER",
        "ConversionType": "WSD",
        "DateOfSecondaryCapture": content.reported_at.strftime("%Y%m%d"),
        "TimeOfSecondaryCapture": content.reported_at.strftime("%H%M%S"),
        "BurnedInAnnotation": "YES",
        "PatientOrientation": None,
        "Laterality": source.laterality,
        "SourceImageSequence": [source_reference(source)],
        "DerivationDescription": wording(content.language).text("notice", "contribution"),
        **_pixels(picture),
    }
    return instance(CAPTURE, source, content, document)


def source_reference(source: Source) -> Item:
    """The radiograph that the picture was made from (PS3.3 10.3 and C.7.6.1.1.4)."""
    return {
        **instance_reference(source.sop_class_uid, source.sop_instance_uid),
        "PurposeOfReferenceCodeSequence": [coded(concepts.SOURCE_IMAGE)],
    }


def _pixels(picture: Image.Image) -> Item:
    """Image Pixel (PS3.3 C.7.6.3) and what lossy compression must say (C.7.6.1.1.5)."""
    with BytesIO() as file:
        picture.save(file, "JPEG", quality=_QUALITY, subsampling=_SUBSAMPLING_4_2_2)
        jpeg = file.getvalue()
    pixels = DataElement("PixelData", "OB", encapsulate([jpeg]))
    pixels.is_undefined_length = True
    return {
        "Rows": picture.height,
        "Columns": picture.width,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": f"{3 * picture.width * picture.height / len(jpeg):.2f}",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "PixelData": pixels,
    }
