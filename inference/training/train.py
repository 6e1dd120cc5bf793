"""Train a network: seeded, resumable at any time, the same on CPU and CUDA."""

from __future__ import annotations

import csv
import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import MAEMetric
from monai.utils import set_determinism
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.network import BoneAgeNet
from inference.training.cpu_kernels import speed_up
from inference.training.dataset import random_views, training_batches
from inference.training.distillation import taught
from inference.training.evaluate import month_metric, predict_array
from inference.training.loss import distillation_loss, distribution_loss
from inference.training.plots import save_curves
from inference.training.prepare import Radiographs, load_radiographs
from inference.training.run_config import RunConfig

_CHECKPOINT_SECONDS = 30.0
_SHOWN_STEPS = 10
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LOG_FIELDS = ("epoch", "steps", "train_loss", "validation_mae_months", "seconds")


@dataclass
class _Run:
    """The mutable state of a run: what a checkpoint holds, and the scaler of float16 gradients,
    which finds its scale again within a few steps."""

    network: BoneAgeNet
    average: BoneAgeNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a run works with. ``steps``: those of one epoch."""

    config: RunConfig
    radiographs: Radiographs
    taught: NDArray[np.float32] | None
    steps: int
    workers: int
    device: torch.device
    out: Path

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"


def train(
    config: RunConfig, prepared: Path, out: Path, *, workers: int, weights: Path | None
) -> Path:
    """Run or resume ``config``; return the final checkpoint's path.

    ``prepared``: array file of :func:`inference.training.prepare.prepare`. ``weights``: what to
    start from: an ImageNet checkpoint of EfficientNet-Lite0, a bundle's safetensors or the
    ``checkpoint.pt`` of another run; None: random. A run interrupted at any point goes on from
    ``out/checkpoint.pt``.
    """
    set_determinism(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    radiographs = load_radiographs(prepared)
    plan = _Plan(
        config=config,
        radiographs=radiographs,
        taught=taught(config, radiographs),
        steps=int((~radiographs.validation).sum()) // config.batch,
        workers=workers,
        device=device,
        out=out,
    )
    run = _start(config, device, weights)
    if plan.checkpoint.exists():
        _restore(run, plan.checkpoint, device)
    set_determinism(config.seed + run.step)
    _let_cuda_be_fast()
    batches = training_batches(
        radiographs, config, workers=workers, taught=plan.taught, first_step=run.step
    )
    while run.step < plan.steps * config.epochs:
        loss = _epoch(run, plan, batches)
        epoch = run.step // plan.steps
        due = epoch % config.validate_epochs == 0 or epoch == config.epochs
        _log(run, plan, loss, _validate(run, plan) if due else None)
    return plan.checkpoint


def _start(config: RunConfig, device: torch.device, weights: Path | None) -> _Run:
    network = BoneAgeNet(**vars(config.network))
    if weights is not None and weights.suffix == ".safetensors":
        network.load_state_dict(load_file(weights))
    elif weights is not None:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if "average" in state:
            network.load_state_dict(state["average"])
        else:
            network.load_imagenet(state)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        speed_up(network)
        _keep_freed_memory()
    average = BoneAgeNet(**vars(config.network)).to(device)
    average.load_state_dict(network.state_dict())
    head = [*network.head.parameters(), *network.sex.parameters()]
    network.freeze(config.optimizer.frozen_blocks)
    known = {id(parameter) for parameter in head}
    backbone = [
        parameter
        for parameter in network.parameters()
        if parameter.requires_grad and id(parameter) not in known
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "peak": config.optimizer.backbone_rate},
            {"params": head, "peak": config.optimizer.head_rate},
        ],
        weight_decay=config.optimizer.weight_decay,
        fused=device.type == "cuda",
    )
    scaler = torch.amp.GradScaler(device.type, enabled=_precision(device) is torch.float16)
    return _Run(network=network, average=average, optimizer=optimizer, scaler=scaler)


def _let_cuda_be_fast() -> None:
    """Let cuDNN try its algorithms and take the fastest: a seeded run then repeats its batches, but
    not the last digits of its weights."""
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors: asking the kernel for zeroed pages again in
    every step takes a third of its time (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**29)


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


def _rate(config: RunConfig, step: int, steps: int) -> float:
    """Factor of the learning rates in 0..1: linear rise, level, linear fall."""
    rise = (step + 1) / config.optimizer.warmup_steps
    fall = (config.epochs * steps - step) / (config.optimizer.decay_epochs * steps)
    return min(rise, 1.0, fall)


def _epoch(run: _Run, plan: _Plan, batches: Iterator[dict[str, Any]]) -> float:
    """Train to the end of the current epoch; return its mean loss."""
    config = plan.config
    epoch, done = divmod(run.step, plan.steps)
    losses: list[Tensor] = []
    title = f"epoch {epoch + 1}/{config.epochs}"
    run.network.train()
    run.network.freeze(config.optimizer.frozen_blocks)
    begun = saved = time.monotonic()
    with Progress() as progress:
        task = progress.add_task(title, total=plan.steps, completed=done)
        for _ in range(plan.steps - done):
            losses.append(_step(run, plan, next(batches)))
            now = time.monotonic()
            run.seconds, begun = run.seconds + now - begun, now
            progress.update(task, advance=1)
            if len(losses) % _SHOWN_STEPS == 0:
                progress.update(task, description=f"{title} loss {losses[-1].item():.2f}")
            if now - saved > _CHECKPOINT_SECONDS:
                _save(run, plan.checkpoint)
                begun = saved = time.monotonic()
    _save(run, plan.checkpoint)
    return float(torch.stack(losses).mean())


def _step(run: _Run, plan: _Plan, batch: dict[str, Tensor]) -> Tensor:
    config, device = plan.config, plan.device
    factor = _rate(config, run.step, plan.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    grey = batch["image"].to(device, non_blocking=True)
    image = random_views(grey, config.augmentation).to(memory_format=torch.channels_last)
    male = batch["male"][:, None].to(device, non_blocking=True)
    months = batch["months"].to(device, non_blocking=True)
    run.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=_precision(device)):
        logits = run.network(image, male)
        loss = distribution_loss(logits, months, config.loss)
        if config.distillation is not None:
            by_teachers = distillation_loss(logits, batch["taught"].to(device))
            loss = loss + config.distillation.weight * by_teachers
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    _average(run, config.optimizer.ema_decay)
    run.step += 1
    return loss.detach()


def _precision(device: torch.device) -> torch.dtype:
    """bfloat16; float16 on GPUs that only emulate it."""
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else torch.bfloat16


@torch.no_grad()
def _average(run: _Run, decay: float) -> None:
    decay = min(decay, (1 + run.step) / (10 + run.step))
    mine, theirs = run.average.state_dict(), run.network.state_dict()
    moving = [name for name, value in mine.items() if value.dtype.is_floating_point]
    torch._foreach_lerp_(  # one call for all, where a GPU waits for each
        [mine[name] for name in moving], [theirs[name] for name in moving], 1 - decay
    )
    for name in mine.keys() - moving:
        mine[name].copy_(theirs[name])


def _validate(run: _Run, plan: _Plan) -> float:
    radiographs, held_back = plan.radiographs, plan.radiographs.validation
    mean, _ = predict_array(
        run.average, radiographs.images[held_back], radiographs.male[held_back], plan.device
    )
    return month_metric(MAEMetric(), mean, radiographs.months[held_back])


def _log(run: _Run, plan: _Plan, loss: float, mae: float | None) -> None:
    path, epoch = plan.out / "log.csv", run.step // plan.steps
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_LOG_FIELDS)
        held_back = "" if mae is None else f"{mae:.3f}"
        writer.writerow([epoch, run.step, f"{loss:.4f}", held_back, f"{run.seconds:.0f}"])
    print(f"epoch {epoch}: loss {loss:.3f}, validation MAE {held_back or '-'} months", flush=True)
    save_curves(path, plan.out / "curves.png")
