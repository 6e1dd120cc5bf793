"""A computer whose GPU the test controls, a batch, and what an undisturbed engine says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference.bundle import Bundle
from inference.engines.onnx import OnnxEngine
from inference.prediction import NetworkOutput

if TYPE_CHECKING:
    from tests.fakes.gpu import Exams, Machine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small model."""
    from tests.builders.models import small_bundle

    return small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def machine(bundle: Bundle) -> Machine:
    """With a GPU that works until the test says otherwise."""
    from tests.fakes.gpu import Machine

    return Machine(bundle)


@pytest.fixture(scope="module")
def exams() -> Exams:
    """A batch of 8."""
    from tests.builders.models import noise_images

    return noise_images(8)


@pytest.fixture(scope="module")
def expected(bundle: Bundle, exams: Exams) -> NetworkOutput:
    """Their results from an engine that nothing disturbs."""
    output = OnnxEngine(bundle).run(*exams)
    assert np.ptp(output.mean_months) > 20  # a result in another's place would be seen
    return output
