"""Where the hand and the saliency lie in the source image, whichever way it was turned."""

from __future__ import annotations

import numpy as np
import pytest

from inference.canonical import CanonicalHand
from inference.prediction import HandBox
from inference.preprocess import STORED_SIDE

LEFT, TOP = 11, 7
FIELD = HandBox(left=LEFT, top=TOP, right=LEFT + 3 * STORED_SIDE, bottom=TOP + 2 * STORED_SIDE)
"""Three pixels of the source to a column, two to a row."""


@pytest.fixture(params=range(4))
def turned(request: pytest.FixtureRequest) -> tuple[np.ndarray, CanonicalHand]:
    """A 299 x 299 image with one bright block, and the block found in the upright image."""
    source = np.zeros((STORED_SIDE, STORED_SIDE))
    source[40:100, 50:200] = 1
    upright = np.rot90(source, request.param)
    down, right = np.nonzero(upright)
    block = HandBox(left=right.min(), top=down.min(), right=right.max() + 1, bottom=down.max() + 1)
    return upright, CanonicalHand(
        image=np.zeros((64, 64), np.uint8),
        hand=block,
        findings=(),
        quarter_turns=request.param,
        field=FIELD,
    )


def test_the_box_is_that_of_the_source_image(turned: tuple[np.ndarray, CanonicalHand]) -> None:
    _, hand = turned
    assert hand.hand_box == HandBox(
        left=LEFT + 3 * 50, top=TOP + 2 * 40, right=LEFT + 3 * 200, bottom=TOP + 2 * 100
    )


def test_the_saliency_lies_as_the_source_image(turned: tuple[np.ndarray, CanonicalHand]) -> None:
    _, hand = turned
    as_source = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    found = hand.saliency(np.ascontiguousarray(np.rot90(as_source, hand.quarter_turns)))
    assert np.array_equal(found.levels, np.rint(as_source / 16 * 255))
    assert found.levels.dtype == np.uint8
    box, margin = found.box, 0.06
    assert box.left == pytest.approx(LEFT + 3 * (50 - 150 * margin))
    assert box.top == pytest.approx(TOP + 2 * (40 - 60 * margin))
    assert box.right == pytest.approx(LEFT + 3 * (200 + 150 * margin))
    assert box.bottom == pytest.approx(TOP + 2 * (100 + 60 * margin))


def test_a_flat_saliency_is_all_zero() -> None:
    hand = CanonicalHand(
        image=np.zeros((64, 64), np.uint8),
        hand=HandBox(left=0, top=0, right=10, bottom=10),
        findings=(),
        quarter_turns=0,
        field=FIELD,
    )
    assert not hand.saliency(np.zeros((8, 8), np.float32)).levels.any()
