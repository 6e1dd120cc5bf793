"""Engines, devices and precisions agree on the months of the same radiographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import inference
from inference.bundle import Bundle, find_bundle, load_bundle
from inference.engines.choice import MAX_APART_MONTHS, allowed_precision
from inference.engines.engine import Device, Engine, Precision
from inference.engines.onnx import OnnxEngine
from inference.prediction import EngineFailed, HandBox, NetworkOutput
from inference.preprocess import STORED_SIDE, to_network_input, to_stored_size
from tests.builders.images import drawn_hand, real_pixels, real_radiographs

MAX_FP32_APART_MONTHS = 0.1
WHOLE = HandBox(left=0, top=0, right=STORED_SIDE, bottom=STORED_SIDE)


def skip_without(device: Device) -> None:
    """Skips where torch, or the device, is missing."""
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The newest released model."""
    models = Path(inference.__file__).parent.parent / "config" / "models"
    return load_bundle(find_bundle(models, "boneage-lite0"))


@pytest.fixture(scope="module", params=["onnx", "torch-cpu", "torch-cuda"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    """Each engine in turn."""
    if request.param == "onnx":
        return OnnxEngine(bundle)
    device: Device = request.param.removeprefix("torch-")
    skip_without(device)
    from inference.engines.torch import TorchEngine

    return TorchEngine(bundle, device)


@pytest.fixture(
    scope="module",
    params=[("cpu", "bf16"), ("cpu", "fp16"), ("cuda", "bf16"), ("cuda", "fp16")],
    ids="-".join,
)
def reduced(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    """Torch in each precision that the node may use with this model, by autocast on the CPU too."""
    device, precision = request.param
    skip_without(device)
    try:
        allowed: Precision = allowed_precision(bundle, precision)
    except EngineFailed as refused:
        pytest.skip(f"never used: {refused}")
    from inference.engines.torch import TorchEngine

    return TorchEngine(bundle, device, precision=allowed)


def network_input(pixels: NDArray[np.generic], side: int) -> NDArray[np.uint8]:
    """The whole image for the network, (side, side)."""
    return to_network_input(to_stored_size(pixels), WHOLE, side)


def radiographs(side: int) -> NDArray[np.uint8]:
    """Real ones, (5, 1, side, side)."""
    rows = real_radiographs(5)
    return np.stack([network_input(real_pixels(r["image_id"]), side) for r in rows])[:, None]


def generated(side: int) -> NDArray[np.uint8]:
    """A drawn hand, noise, a ramp, black and white: (5, 1, side, side)."""
    noise = np.random.default_rng(1).integers(0, 256, (side, side)).astype(np.uint8)
    ramp = np.tile(np.linspace(0, 255, side), (side, 1)).astype(np.uint8)
    flat = [np.full((side, side), level, np.uint8) for level in (0, 255)]
    return np.stack([network_input(drawn_hand(), side), noise, ramp, *flat])[:, None]


def both_sexes(engine: Engine, images: NDArray[np.uint8]) -> NetworkOutput:
    """Every image as a girl's and as a boy's, in one batch."""
    male = np.repeat([[0.0], [1.0]], len(images), axis=0).astype(np.float32)
    return engine.run(np.concatenate([images, images]), male)


def assert_same(
    found: NetworkOutput, expected: NetworkOutput, months: float = MAX_FP32_APART_MONTHS
) -> None:
    """Means, SDs and saliency of two engines, all in months."""
    for name in ("mean_months", "sd_months", "saliency"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= months, name


def test_generated_images_get_the_months_of_the_onnx_engine(engine: Engine, bundle: Bundle) -> None:
    images = generated(bundle.side)
    assert_same(both_sexes(engine, images), both_sexes(OnnxEngine(bundle), images))


def test_real_radiographs_get_the_months_of_the_onnx_engine(engine: Engine, bundle: Bundle) -> None:
    images = radiographs(bundle.side)
    assert_same(both_sexes(engine, images), both_sexes(OnnxEngine(bundle), images))


def test_a_reduced_precision_stays_within_half_a_month(reduced: Engine, bundle: Bundle) -> None:
    images = radiographs(bundle.side)
    found, expected = both_sexes(reduced, images), both_sexes(OnnxEngine(bundle), images)
    assert_same(found, expected, MAX_APART_MONTHS)
    assert (found.mean_months != expected.mean_months).any()  # it was really reduced


def test_a_batch_gives_the_months_of_its_images_one_by_one(engine: Engine, bundle: Bundle) -> None:
    images = generated(bundle.side)
    male = np.array([[0.0], [1.0], [0.0], [1.0], [1.0]], dtype=np.float32)
    batch = engine.run(images, male)
    for i in range(len(images)):
        alone = engine.run(images[i : i + 1], male[i : i + 1])
        assert alone.mean_months[0] == pytest.approx(batch.mean_months[i], abs=0.01)
        assert alone.sd_months[0] == pytest.approx(batch.sd_months[i], abs=0.01)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_network_meets_the_sizes_of_the_start_only(device: Device, bundle: Bundle) -> None:
    skip_without(device)
    from inference.engines.torch import TorchEngine

    engine = TorchEngine(bundle, device, warm_batches=(1, 4))
    met: list[int] = []
    engine._estimator.register_forward_pre_hook(lambda _, given: met.append(len(given[0])))
    images, male = generated(bundle.side), np.ones((5, 1), np.float32)
    expected = OnnxEngine(bundle).run(images, male)
    for count in range(1, 6):
        found = engine.run(images[:count], male[:count])
        assert_same(
            found,
            NetworkOutput(
                mean_months=expected.mean_months[:count],
                sd_months=expected.sd_months[:count],
                saliency=expected.saliency[:count],
            ),
        )
    assert met == [1, 4, 4, 4, 5], "only a batch larger than any of the start has its own size"


def test_an_image_and_its_mirror_get_the_same_months(engine: Engine, bundle: Bundle) -> None:
    images = generated(bundle.side)[:2]
    mirrored = np.ascontiguousarray(images[..., ::-1])
    found = both_sexes(engine, mirrored)
    turned_back = replace(found, saliency=found.saliency[..., ::-1])
    assert_same(both_sexes(engine, images), turned_back)


def test_the_recorded_sex_matters(engine: Engine, bundle: Bundle) -> None:
    mean = both_sexes(engine, generated(bundle.side)[:1]).mean_months
    assert abs(mean[0] - mean[1]) > 1.0


def test_outputs_are_float32_months_with_a_positive_sd(engine: Engine, bundle: Bundle) -> None:
    output = both_sexes(engine, generated(bundle.side))
    assert {a.dtype for a in (output.mean_months, output.sd_months, output.saliency)} == {
        np.dtype(np.float32)
    }
    assert output.saliency.shape == (10, bundle.side // 32, bundle.side // 32)
    assert (output.saliency >= 0).all()
    assert ((output.mean_months >= 0) & (output.mean_months < 240)).all()
    assert (output.sd_months > 0).all()


def test_an_input_of_another_size_is_an_engine_failure(engine: Engine, bundle: Bundle) -> None:
    wrong = np.zeros((1, 2, bundle.side, bundle.side), np.uint8)
    with pytest.raises(EngineFailed):
        engine.run(wrong, np.zeros((1, 1), np.float32))
