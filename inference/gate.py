"""What a radiograph shows, before the network sees it: whether it is a hand, how many, how it lies
and whether its grey scale is inverted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from inference.percentiles import percentiles
from inference.prediction import EngineFailed

GATE_SIDE = 128
"""Side in pixels of the gate network's input."""
OUTPUTS = ("kind", "turn", "inverted", "thumb_right")
"""Of the gate network: logits (B, 4) in the order of :class:`Kind`, logits (B, 4) of 0 to 3 quarter
turns, probabilities (B,), probabilities (B,)."""

_LOW_PERCENTILE, _HIGH_PERCENTILE = 2.0, 98.0


class Kind(StrEnum):
    """What an image shows."""

    HAND = "hand"
    TWO_HANDS = "two_hands"
    INCOMPLETE = "incomplete"
    NOT_A_HAND = "not_a_hand"


@dataclass(frozen=True, kw_only=True)
class View:
    """What the gate saw in one image.

    ``quarter_turns``: counter-clockwise turns (``numpy.rot90``) after which the fingers point up.
    ``inverted``: bones are darker than the background. ``thumb_right``: probability in 0..1 that
    the thumb of the upright image lies to the right, as in a left hand seen from its back.
    """

    kind: Kind
    quarter_turns: int
    inverted: bool
    thumb_right: float


class Gate:
    """Looks at radiographs with the bundle's gate network, on one CPU thread."""

    def __init__(self, onnx: bytes) -> None:
        """Raises :class:`inference.prediction.EngineFailed` when the network cannot be loaded."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                onnx, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
            raise EngineFailed(f"the gate network cannot be loaded: {error}") from None

    def look(self, stored: NDArray[np.float32]) -> View:
        """``stored``: float32 (299, 299) of :func:`inference.preprocess.to_stored_size`.

        Raises :class:`inference.prediction.EngineFailed`.
        """
        image = to_gate_input(stored, GATE_SIDE)[None, None]
        try:
            kind, turn, inverted, thumb_right = self._session.run(OUTPUTS, {"image": image})
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
            raise EngineFailed(f"onnxruntime stopped in the gate: {error}") from None
        return View(
            kind=list(Kind)[int(kind[0].argmax())],
            quarter_turns=int(turn[0].argmax()),
            inverted=bool(inverted[0] > 0.5),
            thumb_right=float(thumb_right[0]),
        )


def to_gate_input(grey: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Grey levels of any size to the gate network's input, uint8 (side, side): the 2nd to 98th
    percentile stretched to 0..255. An image without contrast becomes all zero."""
    low, high = percentiles(grey, _LOW_PERCENTILE, _HIGH_PERCENTILE)
    if not high > low:
        return np.zeros((side, side), dtype=np.uint8)
    scaled = np.clip((grey - low) / (high - low), 0.0, 1.0) * 255.0
    image = Image.fromarray(scaled.astype(np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    return np.asarray(np.rint(np.asarray(image)), dtype=np.uint8)
