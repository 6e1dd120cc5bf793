"""What earlier networks say of the prepared radiographs, to be learned by one network (Hinton G,
Vinyals O, Dean J, 2015, arXiv:1503.02531)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from inference.network import BoneAgeNet, mirrored_distribution
from inference.training.evaluate import over_images
from inference.training.prepare import Radiographs
from inference.training.run_config import RunConfig


def taught(
    config: RunConfig, radiographs: Radiographs, out: Path, device: torch.device
) -> NDArray[np.float32] | None:
    """The teachers' averaged distribution of each radiograph, without augmentation, (N, 240); None
    without teachers.

    It is computed once: ``out/taught-<hash of the teachers>.npy`` keeps it. Raises
    ``FileNotFoundError`` when a teacher is missing and ``RuntimeError`` when one has another shape.
    """
    if config.distillation is None:
        return None
    teachers = config.distillation.teachers
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in teachers)).hexdigest()
    kept = out / f"taught-{digest[:12]}.npy"
    if not kept.exists():
        each = [_distributions(config, path, radiographs, device) for path in teachers]
        np.save(kept, torch.stack(each).mean(dim=0).numpy())
    distributions: NDArray[np.float32] = np.load(kept)
    return distributions


def _distributions(
    config: RunConfig, path: Path, radiographs: Radiographs, device: torch.device
) -> Tensor:
    teacher = BoneAgeNet(**vars(config.network))
    if path.suffix == ".safetensors":
        teacher.load_state_dict(load_file(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        teacher.load_state_dict(state["average"])
    teacher.to(device)

    def answer(image: Tensor, sex: Tensor) -> Tensor:
        return mirrored_distribution(teacher, image, sex)

    return over_images(answer, teacher, radiographs.images, radiographs.male, device)
