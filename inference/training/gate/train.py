"""Train the gate's network: seeded, resumable."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from inference.gate import Kind, View
from inference.training.cpu_kernels import speed_up
from inference.training.gate.config import GateConfig
from inference.training.gate.network import GateNet
from inference.training.gate.prepare import Pictures
from inference.training.gate.sampling import Sampler
from inference.training.imagenet import imagenet_weights
from inference.training.train import _keep_freed_memory

CHECKPOINT = "checkpoint.pt"
_LOGGED_STEPS = 50
_LOG_FIELDS = ("step", "loss", "kind_correct", "turn_correct", "seconds")
_HAND = list(Kind).index(Kind.HAND)
_TWO_HANDS = list(Kind).index(Kind.TWO_HANDS)


@dataclass
class _Run:
    """What a checkpoint holds."""

    network: GateNet
    average: GateNet
    optimizer: torch.optim.Optimizer
    step: int = 0


def targets(views: list[View]) -> Tensor:
    """Kind, quarter turns, inverted and thumb to the right as float32 (B, 4)."""
    rows = [
        (list(Kind).index(view.kind), view.quarter_turns, view.inverted, view.thumb_right)
        for view in views
    ]
    return torch.tensor(rows, dtype=torch.float32)


def gate_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of the kind, plus those of the lie of hands; of one hand's thumb.

    ``logits`` (B, 10) of :class:`GateNet`, ``wanted`` (B, 4) of :func:`targets`.
    """
    kind = wanted[:, 0].long()
    hands = (kind == _HAND) | (kind == _TWO_HANDS)
    single = kind == _HAND
    turn = functional.cross_entropy(logits[:, 4:8], wanted[:, 1].long(), reduction="none")
    polarity = functional.binary_cross_entropy_with_logits(
        logits[:, 8], wanted[:, 2], reduction="none"
    )
    thumb = functional.binary_cross_entropy_with_logits(
        logits[:, 9], wanted[:, 3], reduction="none"
    )
    lie = ((turn + polarity) * hands + thumb * single).mean()
    return functional.cross_entropy(logits[:, :4], kind) + 0.5 * lie


def train(
    config: GateConfig, pictures: Pictures, out: Path, *, left_out: tuple[str, ...] = ()
) -> GateNet:
    """Run or resume ``config`` in ``out``; return the averaged network in evaluation mode.

    ``left_out``: groups of pictures that are not shown, to measure the refusal of unseen kinds.
    """
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    run = _start(config)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        _restore(run, checkpoint)
    sampler = Sampler(
        pictures=pictures, part="train", side=config.side, shares=config.shares, left_out=left_out
    )
    begun, figures = time.monotonic(), []
    for step in track(range(run.step, config.steps), description="gate"):
        run.step = step
        images, views = sampler.batch(config.batch, (config.seed, step))
        figures.append(_step(run, config, torch.from_numpy(images)[:, None], targets(views)))
        run.step = step + 1
        if run.step % _LOGGED_STEPS == 0:
            _log(out, run.step, np.mean(figures, axis=0), time.monotonic() - begun)
            _save(run, checkpoint)
            figures.clear()
    _save(run, checkpoint)
    return run.average.eval()


def _start(config: GateConfig) -> _Run:
    weights = torch.load(imagenet_weights(), map_location="cpu", weights_only=True)
    network, average = GateNet(), GateNet()
    network.load_imagenet(weights)
    average.load_state_dict(network.state_dict())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    speed_up(network)
    _keep_freed_memory()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.rate, weight_decay=config.weight_decay
    )
    return _Run(network=network, average=average, optimizer=optimizer)


def _rate(config: GateConfig, step: int) -> float:
    """Linear rise, then a half cosine to zero."""
    if step < config.warmup_steps:
        return config.rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.rate * 0.5 * (1 + math.cos(math.pi * done))


def _step(run: _Run, config: GateConfig, images: Tensor, wanted: Tensor) -> tuple[float, ...]:
    for group in run.optimizer.param_groups:
        group["lr"] = _rate(config, run.step)
    run.network.train()
    run.optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = run.network(images.contiguous(memory_format=torch.channels_last))
    logits = logits.float()
    loss = gate_loss(logits, wanted)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimizer.step()
    _average(run, min(config.ema_decay, (1 + run.step) / (10 + run.step)))
    kind = (logits[:, :4].argmax(dim=1) == wanted[:, 0]).float().mean()
    hands = wanted[:, 0] <= _TWO_HANDS
    turn = (logits[:, 4:8].argmax(dim=1) == wanted[:, 1])[hands].float().mean()
    return float(loss.detach()), float(kind), float(turn)


@torch.no_grad()
def _average(run: _Run, decay: float) -> None:
    states = zip(run.average.state_dict().values(), run.network.state_dict().values(), strict=True)
    for mine, theirs in states:
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _save(run: _Run, checkpoint: Path) -> None:
    state = {
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
    }
    partial = checkpoint.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(checkpoint)


def _restore(run: _Run, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]


def _log(out: Path, step: int, figures: np.ndarray, seconds: float) -> None:
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_LOG_FIELDS)
        writer.writerow([step, *(f"{value:.4f}" for value in figures), f"{seconds:.0f}"])
