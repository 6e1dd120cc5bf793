"""The learning rate's course, and gradients that are computed another way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from torch import Tensor, nn  # noqa: E402 - after the check for torch

from inference.network import BoneAgeNet  # noqa: E402
from inference.training import train as training  # noqa: E402
from inference.training.depthwise import speed_up_gradients  # noqa: E402
from inference.training.run_config import RunConfig, read_run_config  # noqa: E402

STEPS = 100


@pytest.fixture(scope="module")
def config() -> RunConfig:
    path = Path(training.__file__).parent / "configs" / "lite0-256-hand.toml"
    read = read_run_config(path)
    optimizer = replace(read.optimizer, warmup_steps=50, decay_epochs=2)
    return replace(read, epochs=10, optimizer=optimizer)


def test_the_rate_rises_stays_and_falls_to_nothing_at_the_end(config: RunConfig) -> None:
    rates = [training._rate(config, step, STEPS) for step in range(10 * STEPS)]
    assert rates[:50] == pytest.approx([(step + 1) / 50 for step in range(50)])
    assert rates[50:800] == [1.0] * 750
    assert rates[800:] == pytest.approx([(200 - step) / 200 for step in range(200)])


def test_more_epochs_change_no_step_before_the_old_fall(config: RunConfig) -> None:
    longer = replace(config, epochs=20)
    for step in range(8 * STEPS):
        assert training._rate(config, step, STEPS) == training._rate(longer, step, STEPS)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_gradients_are_torchs_up_to_rounding(
    kernel: int, stride: int, autocast: bool
) -> None:
    ours, theirs = _gradients(kernel, stride, autocast)
    for mine, expected in zip(ours, theirs, strict=True):
        apart = (mine - expected).abs().max() / expected.abs().max()
        assert mine.dtype == expected.dtype
        assert apart < (0.02 if autocast else 1e-5)


def _gradients(kernel: int, stride: int, autocast: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of image and weight: fast and torch's own."""
    torch.manual_seed(kernel + stride)
    image = torch.randn(2, 8, 17, 16)
    module = nn.Conv2d(8, 8, kernel, stride, padding=kernel // 2, groups=8, bias=False)
    toward = torch.randn_like(module(image))

    def run() -> list[Tensor]:
        seen = image.clone().requires_grad_()
        module.weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = module(seen)
        (out.float() * toward).sum().backward()
        assert seen.grad is not None
        assert module.weight.grad is not None
        return [out.detach().float(), seen.grad, module.weight.grad]

    theirs = run()
    speed_up_gradients(nn.Sequential(module))
    return run(), theirs


def test_every_depthwise_convolution_of_the_network_is_sped_up_and_nothing_else() -> None:
    network = BoneAgeNet(sex_features=4, hidden=8)
    image, male = torch.randint(0, 256, (2, 1, 64, 64)), torch.ones(2, 1)
    with torch.no_grad():
        before = network.eval()(image, male)
        speed_up_gradients(network)
        after = network(image, male)
    assert torch.equal(before, after)
    fast = [name for name, module in network.named_modules() if "_conv_forward" in vars(module)]
    assert fast == [f"_blocks.{index}._depthwise_conv" for index in range(16)]
