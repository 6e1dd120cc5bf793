"""What earlier networks say of the radiographs, to be learned by one network (Hinton G, Vinyals O,
Dean J, 2015, arXiv:1503.02531)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.network import mirrored_distribution
from inference.training.evaluate import over_images
from inference.training.prepare import Radiographs, load_radiographs
from inference.training.report import averaged_network, load_checkpoint
from inference.training.run_config import RunConfig


def teach(config: RunConfig, prepared: Path, out: Path) -> Path:
    """Write what the run's network says of each radiograph, without augmentation, to
    ``out/taught.npz``; return its path.

    ``prepared``: array file of :func:`inference.training.prepare.prepare`. Raises
    ``FileNotFoundError`` without it or without ``checkpoint.pt``.
    """
    radiographs = load_radiographs(prepared)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = averaged_network(config, load_checkpoint(out / "checkpoint.pt")).to(device)

    def answer(image: Tensor, sex: Tensor) -> Tensor:
        return mirrored_distribution(network, image, sex)

    said = over_images(answer, network, radiographs.images, radiographs.male, device)
    target = out / "taught.npz"
    np.savez(target, image_ids=radiographs.image_ids, distributions=said.numpy())
    return target


def taught(config: RunConfig, radiographs: Radiographs) -> NDArray[np.float32] | None:
    """The teachers' averaged distribution of each radiograph, (N, 240); None without teachers.

    The teachers may have any shape and side. Raises ``FileNotFoundError`` when one has not been
    asked by :func:`teach` and ``ValueError`` when it was asked about other radiographs.
    """
    if config.distillation is None:
        return None
    said = [_said_of(radiographs, path) for path in config.distillation.teachers]
    average: NDArray[np.float32] = np.mean(said, axis=0, dtype=np.float32)
    return average


def _said_of(radiographs: Radiographs, path: Path) -> NDArray[np.float32]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the step teach with its configuration")
    with np.load(path, allow_pickle=False) as stored:
        if not np.array_equal(stored["image_ids"], radiographs.image_ids):
            raise ValueError(f"{path} speaks of other radiographs: prepare and teach it again")
        said: NDArray[np.float32] = stored["distributions"]
    return said
