"""The reports as DICOM Structured Reports and as a picture; knows neither the node nor a model."""
