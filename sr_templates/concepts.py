"""Every coded concept of the reports, once (PS3.16; LOINC, SNOMED CT, UCUM and RadElement where
the standard has none)."""

from __future__ import annotations

from pydicom.sr.coding import Code
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

PRIVATE_SCHEME = "99BONEAGE"
PRIVATE_SCHEME_NAME = "Bone age DICOM node: concepts without a public code"

# Documents and their parts
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
PROCEDURE_DESCRIPTIONS = Code("121064", "DCM", "Current Procedure Descriptions")
PROCEDURE_DESCRIPTION = Code("121065", "DCM", "Procedure Description")
FINDINGS = Code("121070", "DCM", "Findings")
FINDING = Code("121071", "DCM", "Finding")
IMPRESSIONS = Code("121072", "DCM", "Impressions")
IMPRESSION = Code("121073", "DCM", "Impression")
LANGUAGES = {
    "pt-BR": Code("pt-BR", "RFC5646", "Portuguese (Brazil)"),
    "en": Code("en-US", "RFC5646", "English (United States)"),
}

# What a document says about itself and its image (TID 1204, 1002, 1004, 1500, 1600 to 1603)
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source")
MODALITY = Code("121139", "DCM", "Modality")
MODALITIES: dict[str, Code] = {
    ComputedRadiographyImageStorage: Code("CR", "DCM", "Computed Radiography"),
    DigitalXRayImageStorageForPresentation: Code("DX", "DCM", "Digital Radiography"),
}
"""By SOP Class UID of the source image."""
PIXEL_ROWS = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
ORIENTATION_OF_ROWS = Code("111044", "DCM", "Patient Orientation Row")
ORIENTATION_OF_COLUMNS = Code("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")

# A group of measurements (TID 1410, 4019, 300)
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
ALGORITHM_FAMILY = Code("111000", "DCM", "Algorithm Family")
METHOD = Code("370129005", "SCT", "Measurement Method")
DERIVATION = Code("121401", "DCM", "Derivation")
IMAGE_REGION = Code("111030", "DCM", "Image Region")

# Who says so
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL_NAME = Code("121015", "DCM", "Device Observer Model Name")
DEVICE = Code("121007", "DCM", "Device")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

# Numbers
BONE_AGE = Code("85151-9", "LN", "XR Bone age")
GREULICH_PYLE = Code("252956001", "SCT", "Greulich and Pyle bone age assessment")
CHRONOLOGICAL_AGE = Code("424144002", "SCT", "Current chronological age")
DIFFERENCE = Code("BA-CA", PRIVATE_SCHEME, "Bone age minus chronological age")
PRIOR_BONE_AGE = Code("PRIOR-BA", PRIVATE_SCHEME, "Bone age of the previous exam")
PRIOR_INTERVAL = Code("PRIOR-INT", PRIVATE_SCHEME, "Interval since the previous exam")
BONE_AGE_CHANGE = Code("BA-CHANGE", PRIVATE_SCHEME, "Change of bone age since the previous exam")
POPULATION_SD = Code("121414", "DCM", "Standard deviation of population")
Z_SCORE = Code("121416", "DCM", "Z-Score of measurement")
UNCERTAINTY = Code("371884006", "SCT", "+/-, range of measurement uncertainty")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MONTH = Code("mo", "UCUM", "month")
NO_UNITS = Code("1", "UCUM", "no units")
MILLIMETRE = Code("mm", "UCUM", "mm")
PIXELS = Code("{pixels}", "UCUM", "Pixels")

# Where
HAND = Code("85562004", "SCT", "Hand")
LATERALITIES = {
    "L": Code("7771000", "SCT", "Left"),
    "R": Code("24028007", "SCT", "Right"),
}
"""By Image Laterality (0020,0062); a side that is not stated has no code."""

# Conclusions: RadElement set RDES14, paediatric bone age
DETERMINATION = Code("RDE1733", "RADELEMENT", "Bone age determination")
DETERMINATIONS = {
    "delayed": Code("RDE1733.0", "RADELEMENT", "delayed"),
    "normal": Code("RDE1733.1", "RADELEMENT", "normal"),
    "advanced": Code("RDE1733.2", "RADELEMENT", "advanced"),
    "outside_reference": Code("RDE1733.3", "RADELEMENT", "indeterminate"),
    "no_chronological_age": Code("RDE1733.4", "RADELEMENT", "unknown"),
}

# Why there is none
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
"""CID 6042: the header alone decided."""
FAILED = Code("111224", "DCM", "Failed")
"""CID 6042: the pixels were looked at."""
ANALYSIS_FAILURES = frozenset(
    {
        "hand_incomplete",
        "image_blank",
        "image_saturated",
        "indeterminate",
        "no_hand_found",
        "pixels_unreadable",
        "several_hands",
    }
)
_NO_IMAGE = Code("111213", "DCM", "No image")
_POSITIONING = Code("111209", "DCM", "Positioning")
REJECTIONS = {
    "hand_incomplete": _POSITIONING,
    "image_blank": _NO_IMAGE,
    "no_pixel_data": _NO_IMAGE,
    "view_not_frontal": _POSITIONING,
}
"""CID 7011 where it has the reason; the others are said in words."""
