"""Pictures of a run for people: learning curves and predicted against labelled ages."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def save_curves(log: Path, picture: Path) -> None:
    """Draw training loss and validation MAE per epoch from a run's ``log.csv``."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(epochs, [float(row["train_loss"]) for row in rows], marker="o")
    left.set(xlabel="epoch", ylabel="training loss")
    measured = [row for row in rows if row["validation_mae_months"]]
    right.plot(
        [int(row["epoch"]) for row in measured],
        [float(row["validation_mae_months"]) for row in measured],
        marker="o",
        color="tab:orange",
    )
    right.set(xlabel="epoch", ylabel="validation MAE (months)")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def save_agreement(
    predicted: NDArray[np.float32], labelled: NDArray[np.float32], picture: Path
) -> None:
    """Scatter of predicted against labelled bone age, both in months, shape (N,)."""
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.scatter(labelled, predicted, s=6, alpha=0.4)
    axes.plot([0, 228], [0, 228], color="black", linewidth=1)
    axes.set(
        xlabel="labelled bone age (months)", ylabel="predicted bone age (months)", aspect="equal"
    )
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def save_reliability(
    levels: Sequence[float], shares: Mapping[str, NDArray[np.float64]], picture: Path
) -> None:
    """Share of labels inside the central interval of each level, one line per name."""
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="as claimed")
    for name, values in shares.items():
        axes.plot(levels, values, marker=".", label=name)
    axes.set(
        xlabel="central interval of the predicted distribution",
        ylabel="share of labels inside",
        aspect="equal",
    )
    axes.legend()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
