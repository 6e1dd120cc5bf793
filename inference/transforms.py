"""The preprocessing as a MONAI transform, for users of the bundle outside the node."""

from __future__ import annotations

import numpy as np
from monai.transforms import Transform
from numpy.typing import NDArray

from inference.preprocess import to_network_input


class ToNetworkInput(Transform):
    """Grey levels with bright bones (Rows, Columns) to uint8 (1, side, side), as
    :func:`inference.preprocess.to_network_input` makes them."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, data: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Raises ``ValueError`` unless ``data`` has two dimensions."""
        return to_network_input(data, self.side)[None]
