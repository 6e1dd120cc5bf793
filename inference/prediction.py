"""The values of this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Rejection(StrEnum):
    """Why pixels get no bone age; stable codes."""

    IMAGE_BLANK = "image_blank"
    IMAGE_SATURATED = "image_saturated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    NO_HAND_FOUND = "no_hand_found"
    PIXELS_UNREADABLE = "pixels_unreadable"


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which weights made a prediction; ``sha256`` is that of the safetensors file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class HandBox:
    """Bounding box of the hand in source-image pixel coordinates, edges, origin at the top left
    (PS3.3 C.10.5.1.2)."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class NetworkOutput:
    """What an engine returns for a batch: mean and calibrated SD of the bone age in months, float32
    (B,) each."""

    mean_months: NDArray[np.float32]
    sd_months: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Mean and predictive SD of one radiograph's bone age in months, with the weights that made
    it."""

    bone_age_months: float
    sd_months: float
    hand_box: HandBox
    model: ModelIdentity


class PredictionInvalid(ValueError):
    """The network returned something that is no bone age; the message holds the value."""


class EngineFailed(RuntimeError):
    """The engine could not run, or stopped while running; the message holds no pixel or header
    value."""
