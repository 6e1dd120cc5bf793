"""Write a trained gate: ONNX for the runtime, weights, figures and the ROC."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from inference.gate import OUTPUTS, Gate, Kind, to_gate_input
from inference.training.gate.calibrate import answers_of, calibrated
from inference.training.gate.config import GateConfig
from inference.training.gate.evaluate import figures, unseen
from inference.training.gate.negatives import pydicom_images
from inference.training.gate.network import GateDecision, GateNet
from inference.training.gate.prepare import Pictures
from inference.training.gate.train import CHECKPOINT, train

matplotlib.use("Agg")
from matplotlib import pyplot as plt

GATE_FILES = ("gate.onnx", "gate.safetensors", "gate.json", "roc.png")
LEFT_OUT = ("CXR", "HeadCT")
"""Body parts that a second network is not shown, to see what the gate does with unseen kinds."""
_UNSEEN = "unseen"
_OPSET = 17
_LOOKS = 50


def load_network(out: Path) -> GateNet:
    """The averaged network of a run's checkpoint, in evaluation mode. Raises
    ``FileNotFoundError``."""
    network = GateNet()
    state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    network.load_state_dict(state["average"])
    return network.eval()


def evaluate(config: GateConfig, pictures: Pictures, data: Path, out: Path) -> dict[str, Any]:
    """Calibrate the run's network, write :data:`GATE_FILES` below ``out`` and return the figures.

    Raises ``ValueError`` when the exported network answers otherwise than the trained one.
    """
    decision = calibrated(config, pictures, load_network(out))
    write_onnx(decision, out / "gate.onnx", config.side)
    save_file(decision.network.state_dict(), out / "gate.safetensors")
    (out / "gate.safetensors").chmod(0o644)  # safetensors lets only the owner read
    foreign = pydicom_images()
    look_ms = compared(decision, out / "gate.onnx", list(foreign.values()), config.side)
    found, hands, others = figures(decision, config, pictures, data, foreign)
    result = {
        "parameters": sum(parameter.numel() for parameter in decision.parameters()),
        "shift": round(float(decision.shift[0]), 3),
        "look_ms_median": look_ms,
        **found,
        "area_under_roc": save_roc(hands, others, out / "roc.png"),
        "unseen_body_parts": _unseen_figures(config, pictures, out),
    }
    (out / "gate.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def train_without(config: GateConfig, pictures: Pictures, out: Path) -> None:
    """Train a second network, shorter, that never sees :data:`LEFT_OUT`."""
    shorter = replace(config, steps=config.unseen_steps)
    train(shorter, pictures, out / _UNSEEN, left_out=LEFT_OUT)


def write_onnx(decision: GateDecision, path: Path, side: int) -> None:
    """Export the network with its decision."""
    image = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    names = ["image", *OUTPUTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but the newer exporter needs onnxscript
        torch.onnx.export(
            decision,
            (image,),
            str(path),
            input_names=names[:1],
            output_names=names[1:],
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=_OPSET,
            dynamo=False,
        )


def compared(
    decision: GateDecision, path: Path, images: list[NDArray[np.float32]], side: int
) -> float:
    """Look at some images (299, 299) through the runtime; return the median time of one look in
    ms. Raises ``ValueError`` when it answers otherwise than the trained network."""
    gate = Gate(path.read_bytes())
    times = []
    for image in (images * _LOOKS)[:_LOOKS]:
        begun = time.perf_counter()
        view = gate.look(image)
        times.append(time.perf_counter() - begun)
        [answer] = answers_of(decision, to_gate_input(image, side)[None])
        kind = list(Kind)[int(answer[:4].argmax())]
        if (view.kind, view.quarter_turns) != (kind, int(answer[4:8].argmax())):
            raise ValueError(f"{path} answers otherwise than the network it was exported from")
    return round(1000 * float(np.median(times)), 2)


def save_roc(hands: NDArray[np.float32], others: NDArray[np.float32], picture: Path) -> float:
    """Draw the share of others refused against the share of hands refused over all thresholds of
    the margin; return the area under the curve."""
    thresholds = np.unique(np.quantile(np.concatenate([hands, others]), np.linspace(0, 1, 4001)))
    lost = np.searchsorted(np.sort(hands), thresholds, side="right") / len(hands)
    kept_out = np.searchsorted(np.sort(others), thresholds, side="right") / len(others)
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot(100 * lost, 100 * kept_out)
    axes.plot(100 * (hands <= 0).mean(), 100 * (others <= 0).mean(), "o", label="chosen")
    axes.set(
        xlabel="validation hands refused (%)",
        ylabel="other images refused (%)",
        xlim=(-0.1, 5),
        ylim=(90, 100.2),
    )
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
    return round(float(np.trapezoid(np.append(kept_out, 1.0), np.append(lost, 1.0))), 5)


def _unseen_figures(config: GateConfig, pictures: Pictures, out: Path) -> dict[str, Any] | None:
    if not (out / _UNSEEN / CHECKPOINT).exists():
        return None
    decision = calibrated(config, pictures, load_network(out / _UNSEEN))
    refused = unseen(decision, pictures, LEFT_OUT, config.side)
    return {"left_out_of_training": LEFT_OUT, "steps": config.unseen_steps, **refused}
