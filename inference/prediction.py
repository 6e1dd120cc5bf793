"""The values of this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Rejection(StrEnum):
    """Why pixels get no bone age; stable codes."""

    HAND_INCOMPLETE = "hand_incomplete"
    IMAGE_BLANK = "image_blank"
    IMAGE_SATURATED = "image_saturated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    INDETERMINATE = "indeterminate"
    NO_HAND_FOUND = "no_hand_found"
    PIXELS_UNREADABLE = "pixels_unreadable"
    SEVERAL_HANDS = "several_hands"


class Finding(StrEnum):
    """What was seen and put right before the network ran; stable codes."""

    GREY_SCALE_INVERTED = "grey_scale_inverted"
    """Bones were darker than the background."""
    IMAGE_TURNED = "image_turned"
    """The fingers did not point up."""
    TWO_HANDS_LEFT_ASSESSED = "two_hands_left_assessed"


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which weights made a prediction; ``sha256`` is that of the safetensors file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class HandBox:
    """Bounding box in pixel coordinates, edges, origin at the top left (PS3.3 C.10.5.1.2): of the
    source image in a :class:`Prediction`, of the 299 x 299 image before that."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class NetworkOutput:
    """What an engine returns for a batch: mean and calibrated SD of the bone age in months, float32
    (B,) each, and the saliency of the network's input, float32 (B, h, w), not negative."""

    mean_months: NDArray[np.float32]
    sd_months: NDArray[np.float32]
    saliency: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Which places moved the result: ``levels`` uint8 (h, w), 255 the strongest, spread evenly over
    ``box`` of the source image, both as the source image lies."""

    box: HandBox
    levels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Mean and predictive SD of one radiograph's bone age in months, with the weights that made
    it."""

    bone_age_months: float
    sd_months: float
    hand_box: HandBox
    saliency: Saliency
    findings: tuple[Finding, ...]
    model: ModelIdentity


class PredictionInvalid(ValueError):
    """The network returned something that is no bone age; the message holds the value."""


class EngineFailed(RuntimeError):
    """The engine could not run, or stopped while running; the message holds no pixel or header
    value."""
