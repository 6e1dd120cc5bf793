"""The compiled parts of a training step give what torch gives, up to bfloat16's rounding."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
if shutil.which("cc") is None:
    pytest.skip("training on a CPU needs a C compiler", allow_module_level=True)

from torch import Tensor, nn  # noqa: E402 - after the check for torch
from torch.nn import functional  # noqa: E402

from inference.network import BoneAgeNet, NormReLU6, SamePadConv  # noqa: E402
from inference.training import cpu_kernels  # noqa: E402
from inference.training.cpu_kernels import speed_up  # noqa: E402

ROUNDING = 0.02
"""Of bfloat16: eight bits of precision, some steps in a row."""


def run(module: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The result of ``module`` in training, and every gradient, in float32."""
    seen = image.clone().requires_grad_()
    toward = torch.Generator().manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = module.train()(seen)
    (result.float() * torch.randn(result.shape, generator=toward)).sum().backward()
    assert seen.grad is not None
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    found = {"result": result.detach(), "image": seen.grad, **gradients}
    return {name: value.float() for name, value in found.items() if value is not None}


def sped_up(module: nn.Module) -> nn.Module:
    fast = copy.deepcopy(module)
    speed_up(fast)
    return fast


def apart(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference, as a share of the expected norm."""
    return float((found - expected).norm() / expected.norm())


def assert_same(module: nn.Module, image: Tensor) -> None:
    found, expected = run(sped_up(module), image), run(module, image)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert apart(found[name], value) < ROUNDING, name


@pytest.mark.parametrize("side", [16, 10, 4])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_convolutions_are_torchs(kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(kernel + stride)
    channels = 48
    padded = SamePadConv if stride == 2 else nn.Conv2d
    padding = 0 if stride == 2 else kernel // 2
    convolution = padded(
        channels, channels, kernel, stride, padding=padding, groups=channels, bias=False
    )
    image = torch.randn(3, channels, side, side).bfloat16()
    assert_same(nn.Sequential(convolution), image)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, NormReLU6])
@pytest.mark.parametrize("channels", [16, 24, 40, 320])
def test_normalisation_is_torchs(kind: type[nn.BatchNorm2d], channels: int) -> None:
    torch.manual_seed(channels)
    norm = kind(channels, momentum=0.3, eps=1e-3)
    nn.init.uniform_(norm.weight, 0.5, 3.0)
    nn.init.uniform_(norm.bias, -1.0, 2.0)
    image = (torch.randn(4, channels, 8, 8) * 2 + 5).bfloat16()
    plain, fast = copy.deepcopy(norm), copy.deepcopy(norm)
    speed_up(nn.Sequential(fast))
    found, expected = run(nn.Sequential(fast), image), run(nn.Sequential(plain), image.float())
    for name, value in expected.items():
        assert apart(found[name], value) < ROUNDING, name
    kept = dict(fast.named_buffers())
    for name, buffer in plain.named_buffers():
        assert torch.allclose(kept[name].float(), buffer.float(), rtol=1e-2, atol=1e-3), name
    assert int(kept["num_batches_tracked"]) == 1


def test_relu6_passes_no_gradient_beyond_its_ends() -> None:
    norm = NormReLU6(16)
    nn.init.constant_(norm.bias, 100.0)
    found = run(sped_up(nn.Sequential(norm)), torch.randn(2, 16, 4, 4).bfloat16())
    assert torch.all(found["result"] == 6.0)
    assert all(float(found[name].abs().max()) == 0.0 for name in ("image", "0.weight", "0.bias"))


def test_what_the_kernels_cannot_take_goes_to_torch() -> None:
    torch.manual_seed(1)
    for image in (torch.randn(1, 24, 3, 3).bfloat16(), torch.randn(2, 16, 4, 4)):
        norm = nn.BatchNorm2d(image.shape[1])
        expected = run(nn.Sequential(copy.deepcopy(norm)), image)
        found = run(sped_up(nn.Sequential(norm)), image)
        assert torch.equal(found["result"], expected["result"])
    for convolution, side in (
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 6),
        (nn.Conv2d(16, 16, 3, 2, padding=1, groups=16, bias=False), 6),
        (nn.Conv2d(16, 16, 3, groups=16, bias=False), 6),
        (SamePadConv(16, 16, 3, 2, groups=16, bias=False), 7),
    ):
        image = torch.randn(2, convolution.in_channels, side, side).bfloat16()
        expected = run(nn.Sequential(convolution), image)
        found = run(sped_up(nn.Sequential(convolution)), image)
        assert torch.equal(found["result"], expected["result"])


def test_the_network_learns_the_same_from_one_batch() -> None:
    torch.manual_seed(2)
    network = BoneAgeNet(dropout=0.0, drop_path=0.0, sex_features=4, hidden=16)
    image = torch.randint(0, 256, (8, 1, 64, 64)).float()
    male, ages = torch.ones(8, 1), torch.randint(0, 240, (8,))

    def gradients(trained: BoneAgeNet) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(trained.train()(image, male).float(), ages)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}

    fast = copy.deepcopy(network)
    speed_up(fast)
    plain, found = gradients(copy.deepcopy(network)), gradients(fast)
    exact = copy.deepcopy(network)
    functional.cross_entropy(exact.train()(image, male), ages).backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad for name, p in exact.named_parameters() if p.grad is not None}
    for name in ("_conv_head.weight", "_blocks.15._depthwise_conv.weight", "head.1.weight"):
        assert apart(found[name], expected[name]) < 1.2 * apart(plain[name], expected[name]) + 0.01


def test_a_network_that_is_sped_up_answers_as_before_outside_training() -> None:
    network = BoneAgeNet(sex_features=4, hidden=8)
    image, male = torch.randint(0, 256, (2, 1, 64, 64)), torch.ones(2, 1)
    with torch.no_grad():
        before = network.eval()(image, male)
        speed_up(network)
        assert torch.equal(network(image, male), before)


def test_every_depthwise_convolution_and_norm_of_the_network_is_sped_up_and_nothing_else() -> None:
    network = BoneAgeNet(sex_features=4, hidden=8)
    norms = {name for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    depthwise = {f"_blocks.{index}._depthwise_conv" for index in range(16)}
    speed_up(network)
    fast = {name for name, module in network.named_modules() if "forward" in vars(module)}
    assert fast == norms | depthwise


def test_without_a_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu_kernels._kernels.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="needs a C compiler: install gcc"):
        speed_up(nn.Sequential())
    monkeypatch.undo()
    speed_up(nn.Sequential())


def test_a_source_that_does_not_compile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int main( {")
    cpu_kernels._kernels.cache_clear()
    monkeypatch.setattr(cpu_kernels, "_SOURCE", broken)
    with pytest.raises(RuntimeError, match=r"broken\.c does not compile"):
        speed_up(nn.Sequential())
    monkeypatch.undo()
    cpu_kernels._kernels.cache_clear()


def test_the_kernels_compile_without_a_warning(tmp_path: Path) -> None:
    # without AVX-512 gcc warns of an ABI that functions of one file have among themselves
    flags = [*cpu_kernels._FLAGS, "-fopenmp", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-c"]
    target = str(tmp_path / "kernels.o")
    command = ["cc", *flags, str(cpu_kernels._SOURCE), "-o", target]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
