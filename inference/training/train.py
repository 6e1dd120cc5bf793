"""Train a network: seeded, resumable after every few hundred steps, the same on CPU and CUDA."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import set_determinism
from rich.progress import Progress
from torch import Tensor, nn

from inference.network import MONTHS, BoneAgeNet, moments
from inference.training.dataset import training_loader
from inference.training.evaluate import predict_array
from inference.training.plots import save_curves
from inference.training.prepare import Radiographs, load_radiographs
from inference.training.run_config import LossConfig, RunConfig

_CHECKPOINT_STEPS = 60
_LOG_FIELDS = ("epoch", "steps", "train_loss", "validation_mae_months", "seconds")


@dataclass
class _Run:
    """The mutable state of a run: what a checkpoint holds."""

    network: BoneAgeNet
    average: BoneAgeNet
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def distribution_loss(logits: Tensor, months: Tensor, config: LossConfig) -> Tensor:
    """Cross entropy against a Gaussian around the label plus the weighted L1 distance of the mean
    (months).

    ``logits`` (B, 240), ``months`` (B,). Returns a scalar.
    """
    bins = torch.arange(MONTHS, device=logits.device, dtype=torch.float32)
    target = torch.softmax(
        -((bins[None] - months[:, None]) ** 2) / (2 * config.label_sd_months**2), dim=1
    )
    entropy = -(target * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
    mean, _ = moments(logits)
    return entropy + config.mean_weight * (mean - months).abs().mean()


def train(
    config: RunConfig, prepared: Path, out: Path, *, workers: int, imagenet: Path | None
) -> Path:
    """Run or resume ``config``; return the final checkpoint's path.

    ``prepared``: array file of :func:`inference.training.prepare.prepare`. ``imagenet``:
    EfficientNet-Lite0 weights to
    start from. A run interrupted at any point goes on from ``out/checkpoint.pt``.
    """
    set_determinism(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    radiographs = load_radiographs(prepared)
    run = _start(config, device, imagenet)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        _restore(run, checkpoint, device)
    steps = int((~radiographs.validation).sum()) // config.batch
    while run.step < steps * config.epochs:
        loss = _epoch(
            run,
            config,
            radiographs,
            steps=steps,
            workers=workers,
            device=device,
            checkpoint=checkpoint,
        )
        mae = _validate(run, radiographs, device)
        _log(out, run, steps, loss, mae)
    return checkpoint


def _start(config: RunConfig, device: torch.device, imagenet: Path | None) -> _Run:
    network = BoneAgeNet(**vars(config.network))
    if imagenet is not None:
        network.load_imagenet(torch.load(imagenet, map_location="cpu", weights_only=True))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = BoneAgeNet(**vars(config.network)).to(device)
    average.load_state_dict(network.state_dict())
    head = [*network.head.parameters(), *network.sex.parameters()]
    known = {id(parameter) for parameter in head}
    backbone = [parameter for parameter in network.parameters() if id(parameter) not in known]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "peak": config.optimizer.backbone_rate},
            {"params": head, "peak": config.optimizer.head_rate},
        ],
        weight_decay=config.optimizer.weight_decay,
    )
    return _Run(network=network, average=average, optimizer=optimizer)


def _restore(run: _Run, checkpoint: Path, device: torch.device) -> None:
    state: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.seconds = state["step"], state["seconds"]


def _save(run: _Run, checkpoint: Path) -> None:
    state = {
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "seconds": run.seconds,
    }
    partial = checkpoint.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(checkpoint)


def _rate(config: RunConfig, step: int, total: int) -> float:
    """One-cycle factor in 0..1: linear rise, cosine fall."""
    rise = config.optimizer.warmup_fraction * total
    if step < rise:
        return 0.04 + 0.96 * step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise))) + 1e-4


def _epoch(
    run: _Run,
    config: RunConfig,
    radiographs: Radiographs,
    *,
    steps: int,
    workers: int,
    device: torch.device,
    checkpoint: Path,
) -> float:
    """Train to the end of the current epoch; return its mean loss."""
    epoch, done = divmod(run.step, steps)
    torch.manual_seed(config.seed + 1000 * epoch + done)
    losses = []
    with Progress() as progress:
        task = progress.add_task(f"epoch {epoch + 1}/{config.epochs}", total=steps, completed=done)
        for batch in training_loader(radiographs, config, workers):
            losses.append(_step(run, config, batch, steps * config.epochs, device))
            progress.update(
                task,
                advance=1,
                description=f"epoch {epoch + 1}/{config.epochs} loss {losses[-1]:.2f}",
            )
            if run.step % _CHECKPOINT_STEPS == 0:
                _save(run, checkpoint)
            if run.step % steps == 0:
                break
    _save(run, checkpoint)
    return float(np.mean(losses))


def _step(
    run: _Run, config: RunConfig, batch: dict[str, Tensor], total: int, device: torch.device
) -> float:
    begun = time.monotonic()
    factor = _rate(config, run.step, total)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    image = batch["image"].to(device, memory_format=torch.channels_last)
    male, months = batch["male"][:, None].to(device), batch["months"].to(device)
    run.network.train()
    run.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss = distribution_loss(run.network(image, male), months, config.loss)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimizer.step()
    _average(run, config.optimizer.ema_decay)
    run.step += 1
    run.seconds += time.monotonic() - begun
    return float(loss.detach())


@torch.no_grad()
def _average(run: _Run, decay: float) -> None:
    decay = min(decay, (1 + run.step) / (10 + run.step))
    for mine, theirs in zip(
        run.average.state_dict().values(), run.network.state_dict().values(), strict=True
    ):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _validate(run: _Run, radiographs: Radiographs, device: torch.device) -> float:
    held_back = radiographs.validation
    mean, _ = predict_array(
        run.average, radiographs.images[held_back], radiographs.male[held_back], device
    )
    return float(np.abs(mean - radiographs.months[held_back]).mean())


def _log(out: Path, run: _Run, steps: int, loss: float, mae: float) -> None:
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_LOG_FIELDS)
        writer.writerow(
            [run.step // steps, run.step, f"{loss:.4f}", f"{mae:.3f}", f"{run.seconds:.0f}"]
        )
    print(
        f"epoch {run.step // steps}: loss {loss:.3f}, validation MAE {mae:.2f} months", flush=True
    )
    save_curves(path, out / "curves.png")
