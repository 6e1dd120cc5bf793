"""From any radiograph to the network's input: refuse what is no single assessable hand, turn the
image upright, put its grey scale right, cut out the hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.gate import Gate, Kind, View
from inference.localize import find_hand, find_two_hands
from inference.prediction import Finding, HandBox, Rejection, Saliency
from inference.preprocess import STORED_SIDE, Radiograph, cut_out, to_network_input, widened
from inference.quality import is_blank, is_plausible, is_saturated


@dataclass(frozen=True, kw_only=True)
class CanonicalHand:
    """One hand, upright with bright bones.

    ``image``: the network's input, uint8 (side, side). ``hand``: the hand's box in the upright
    299 x 299 image. ``field``: the part of the source image within its frame, which became those
    299 x 299 pixels after ``quarter_turns``.
    """

    image: NDArray[np.uint8]
    hand: HandBox
    findings: tuple[Finding, ...]
    quarter_turns: int
    field: HandBox

    @property
    def hand_box(self) -> HandBox:
        """The hand's box in the source image."""
        return self._in_source(self.hand)

    def saliency(self, strength: NDArray[np.float32]) -> Saliency:
        """The network's saliency, float32 (h, w) over ``image``, as the source image lies."""
        strongest = max(float(strength.max()), 1e-12)
        levels = np.rint(strength / strongest * 255).astype(np.uint8)
        return Saliency(
            box=self._in_source(widened(self.hand)), levels=np.rot90(levels, -self.quarter_turns)
        )

    def _in_source(self, box: HandBox) -> HandBox:
        corners = [(box.left, box.top), (box.right, box.bottom)]
        for _ in range(self.quarter_turns):
            corners = [(STORED_SIDE - y, x) for x, y in corners]
        field = self.field
        across = (field.right - field.left) / STORED_SIDE
        down = (field.bottom - field.top) / STORED_SIDE
        (x0, y0), (x1, y1) = corners
        return HandBox(
            left=field.left + min(x0, x1) * across,
            top=field.top + min(y0, y1) * down,
            right=field.left + max(x0, x1) * across,
            bottom=field.top + max(y0, y1) * down,
        )


def find_canonical_hand(radiograph: Radiograph, gate: Gate, side: int) -> CanonicalHand | Rejection:
    """The hand to assess in a radiograph of either polarity, in any of the four orientations, or
    why there is none.

    Of two hands it is the left one: the one whose thumb lies to the right, as in a view of the back
    of both hands. Raises :class:`inference.prediction.EngineFailed` when the gate cannot run.
    """
    stored = radiograph.stored
    if is_blank(stored):
        return Rejection.IMAGE_BLANK
    view = gate.look(stored)
    if view.kind is Kind.NOT_A_HAND:
        return Rejection.NO_HAND_FOUND
    upright = _upright(stored, view)
    if is_saturated(upright):
        return Rejection.IMAGE_SATURATED
    if view.kind is Kind.INCOMPLETE:
        return Rejection.HAND_INCOMPLETE
    two = view.kind is Kind.TWO_HANDS
    hand = _left_hand(upright, gate) if two else _only_hand(upright)
    if isinstance(hand, Rejection):
        return hand
    return CanonicalHand(
        image=to_network_input(upright, hand, side),
        hand=hand,
        findings=_findings(view),
        quarter_turns=view.quarter_turns,
        field=radiograph.field,
    )


def _upright(stored: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    turned = np.rot90(stored, view.quarter_turns)
    bright = turned.max() + turned.min() - turned if view.inverted else turned
    return np.ascontiguousarray(bright)


def _only_hand(upright: NDArray[np.float32]) -> HandBox | Rejection:
    hand = find_hand(upright)
    return hand.box if hand is not None and is_plausible(hand) else Rejection.NO_HAND_FOUND


def _left_hand(upright: NDArray[np.float32], gate: Gate) -> HandBox | Rejection:
    hands = find_two_hands(upright)
    if hands is None:
        return Rejection.SEVERAL_HANDS
    boxes = [hand.box for hand in hands]
    left = [box for box in boxes if gate.look(cut_out(upright, box)).thumb_right > 0.5]
    return left[0] if len(left) == 1 else Rejection.SEVERAL_HANDS


def _findings(view: View) -> tuple[Finding, ...]:
    seen = {
        Finding.GREY_SCALE_INVERTED: view.inverted,
        Finding.IMAGE_TURNED: view.quarter_turns != 0,
        Finding.TWO_HANDS_LEFT_ASSESSED: view.kind is Kind.TWO_HANDS,
    }
    return tuple(finding for finding, found in seen.items() if found)
