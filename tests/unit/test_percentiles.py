"""Percentiles are numpy's, to the last bit: training and both engines see the same images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from inference.percentiles import percentiles

GREY_LEVELS = st.floats(-1e6, 1e6, width=32)
PERCENTS = st.floats(0, 100)


@given(arrays(np.float32, array_shapes(max_dims=2, max_side=40), elements=GREY_LEVELS), PERCENTS)
def test_any_image_has_the_percentiles_of_numpy(
    image: np.ndarray[tuple[int, ...], np.dtype[np.float32]], percent: float
) -> None:
    assert percentiles(image, percent, 98.0) == tuple(np.percentile(image, (percent, 98.0)))


@pytest.mark.parametrize("part", [slice(None), slice(20, 280)], ids=["whole", "part"])
@pytest.mark.parametrize("levels", [2, 300, 60_000])
def test_a_radiograph_has_the_percentiles_of_numpy(levels: int, part: slice) -> None:
    rng = np.random.default_rng(levels)
    image = np.rint(rng.random((299, 299)) * levels).astype(np.float32)[:, part]
    before = image.copy()
    found = percentiles(image, 0, 2, 50, 98, 99, 100)
    assert found == tuple(np.percentile(image, (0, 2, 50, 98, 99, 100)))
    assert np.array_equal(image, before)
