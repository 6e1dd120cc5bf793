"""The preprocessing as a MONAI transform, for users of the bundle outside the node."""

from __future__ import annotations

import numpy as np
from monai.transforms import Transform
from numpy.typing import NDArray

from inference.frame import within_frame
from inference.localize import find_hand
from inference.preprocess import to_network_input, to_stored_size
from inference.quality import is_plausible


class ToNetworkInput(Transform):
    """Grey levels (Rows, Columns) of one upright hand with bright bones to uint8 (1, side, side):
    the hand is found and cut out as in training and in the node.

    The node looks at a radiograph with its gate before this and turns it upright; this transform
    does not.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, data: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Raises ``ValueError`` unless ``data`` has two dimensions and shows a plausible hand."""
        stored = to_stored_size(data[within_frame(data)])
        hand = find_hand(stored)
        if hand is None or not is_plausible(hand):
            raise ValueError("no hand found: give one upright hand with bright bones")
        return to_network_input(stored, hand.box, self.side)[None]
