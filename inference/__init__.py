"""Pixels and models; knows nothing of the node."""

import os

# onnxruntime's Linux builds since 1.29 send what runs to their maker, unless told so before they
# begin: https://github.com/microsoft/onnxruntime/pull/27379. Nothing leaves a hospital unasked.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
