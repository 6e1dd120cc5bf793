"""From an engine's output to predictions. The SD is calibrated inside the network that both engines
run (:class:`inference.network.BoneAgeEstimator`)."""

from __future__ import annotations

import math

from inference.canonical import CanonicalHand
from inference.prediction import (
    ModelIdentity,
    NetworkOutput,
    Prediction,
    PredictionInvalid,
)

MAX_MONTHS = 240.0


def to_prediction(
    output: NetworkOutput, index: int, *, hand: CanonicalHand, model: ModelIdentity
) -> Prediction:
    """The prediction of the batch's image ``index``.

    Raises :class:`PredictionInvalid` unless the mean lies in 0..240 months and the SD is positive
    and finite.
    """
    mean, deviation = float(output.mean_months[index]), float(output.sd_months[index])
    if not 0.0 <= mean <= MAX_MONTHS:
        raise PredictionInvalid(f"{model.name} {model.version} returned {mean} months")
    if not 0.0 < deviation < math.inf:
        raise PredictionInvalid(f"{model.name} {model.version} returned an SD of {deviation}")
    return Prediction(
        bone_age_months=mean,
        sd_months=deviation,
        hand_box=hand.hand_box,
        saliency=hand.saliency(output.saliency[index]),
        findings=hand.findings,
        model=model,
    )
