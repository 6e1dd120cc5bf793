"""The released model on held-back radiographs at full size, as a node receives them, that were
turned, mirrored, inverted, framed or degraded. ``-s`` prints the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dicom_node.adapters.predictor import MODELS
from inference.bundle import GATE_ONNX, find_bundle, load_bundle
from inference.canonical import CanonicalHand, find_canonical_hand
from inference.engines.onnx import OnnxEngine
from inference.gate import Gate
from inference.preprocess import to_radiograph
from tests.builders.images import RSNA, real_radiographs

pytest.importorskip("torch", reason="needs the torch extra")

from inference.training.robustness import (
    MAX_MEAN_SHIFT_MONTHS,
    Grey,
    full_size,
    measure,
)

pytestmark = pytest.mark.timeout(600)


def test_no_change_moves_the_bone_age_by_three_months() -> None:
    real_radiographs()  # skips without the data
    bundle = load_bundle(find_bundle(MODELS, "boneage-lite0"))
    gate, engine = Gate(bundle.read(GATE_ONNX)), OnnxEngine(bundle)

    def months(grey: Grey, male: bool) -> float:
        hand = find_canonical_hand(to_radiograph(grey), gate, bundle.side)
        if not isinstance(hand, CanonicalHand):
            return np.nan
        output = engine.run(hand.image[None, None], np.array([[male]], dtype=np.float32))
        return float(output.mean_months[0])

    def assess(greys: Sequence[Grey], male: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.array([months(*one) for one in zip(greys, male, strict=True)])

    found = measure(*full_size(RSNA), assess)
    table = Table("change", "refused", "mean absolute shift", "mean shift", "MAE")
    for name, row in found["changes"].items():
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
    Console(width=120).print(table)
    for name, row in found["changes"].items():
        assert row["refused"] == 0, name
        assert row["mean_absolute_shift_months"] <= MAX_MEAN_SHIFT_MONTHS, name
