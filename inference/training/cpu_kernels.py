"""A training step of EfficientNet-Lite0 in less time on a CPU.

Most of a bfloat16 step goes to what oneDNN and ATen compute slowly there: the gradients of
depthwise convolutions, and batch normalisation with its ReLU6. ``cpu_kernels.c`` computes both;
``cc`` compiles it with OpenMP when a training begins.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.network import NormReLU6, SamePadConv

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native")
_LANES = 16
_MIN_WIDTH = 256
_RELU6 = (0.0, 6.0)
_UNBOUNDED = (float("-inf"), float("inf"))


def speed_up(network: nn.Module) -> None:
    """Let a network on the CPU use the kernels wherever they apply: in training, under bfloat16
    autocast.

    Results equal those of torch up to rounding. Raises ``RuntimeError`` when the kernels cannot be
    compiled.
    """
    _kernels()
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = _convolve(module)  # type: ignore[method-assign]
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = _normalise(module)  # type: ignore[method-assign]


@cache
def _kernels() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "cpu_kernels.so"
        command = ["cc", *_FLAGS, "-fopenmp", "-shared", "-fPIC", str(_SOURCE), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - no input of others
        except FileNotFoundError as error:
            raise RuntimeError("training on a CPU needs a C compiler: install gcc") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{_SOURCE} does not compile: {error.stderr}") from error
        return ctypes.CDLL(str(library))


def _call(name: str, *arguments: Tensor | float | int) -> None:
    """Run a kernel; tensors go as pointers, integers as ``long``, other numbers as ``float``."""
    converted: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, int):
            converted.append(ctypes.c_long(argument))
        else:
            converted.append(ctypes.c_float(argument))
    kernel = getattr(_kernels(), name)
    kernel.restype = None
    kernel(*converted)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of bfloat16 (B, C, H, W), ``padding`` pixels above and to the left
    of it and as many as needed at the other ends for an output of (H, W) / ``stride``.

    At stride 1 oneDNN computes the result and the gradient of the image as fast.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        image = _channels_last(image)
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(image, weight)
        if stride == 1:
            half = weight.to(image.dtype)
            return functional.conv2d(image, half, padding=padding, groups=image.shape[1])
        images, channels, rows, columns = image.shape
        out = torch.empty(
            (images, channels, rows // stride, columns // stride),
            dtype=image.dtype,
            memory_format=torch.channels_last,
        )
        _call("depthwise", image, _by_tap(weight), out, *_geometry(ctx, image, weight))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        image, weight = ctx.saved_tensors
        gradient = _channels_last(gradients[0])
        geometry = _geometry(ctx, image, weight)
        if ctx.stride == 1:
            to_image = _stride_1_image_gradient(gradient, image, weight)
        else:
            to_image = torch.empty_like(image)
            _call("depthwise_image_gradient", _by_tap(weight), gradient, to_image, *geometry)
        kernel = weight.shape[2]
        to_weight = torch.empty(len(image), kernel, kernel, image.shape[1])
        _call("depthwise_weight_gradient", image, gradient, to_weight, *geometry)
        return to_image, to_weight.sum(dim=0).permute(2, 0, 1)[:, None], None, None


def _geometry(ctx: Any, image: Tensor, weight: Tensor) -> tuple[int, ...]:
    images, channels, rows, columns = image.shape
    out = rows // ctx.stride, columns // ctx.stride
    return images, rows, columns, *out, channels, weight.shape[2], ctx.stride, ctx.padding


def _by_tap(weight: Tensor) -> Tensor:
    """Weights (C, 1, k, k) as float32 (k, k, C)."""
    return weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()


def _stride_1_image_gradient(gradient: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    to_image, _, _ = torch.ops.aten.convolution_backward(
        gradient,
        image,
        weight.to(image.dtype),
        None,
        [1, 1],
        [weight.shape[2] // 2] * 2,
        [1, 1],
        False,
        [0, 0],
        image.shape[1],
        [True, False, False],
    )
    result: Tensor = to_image
    return result


def _convolve(module: nn.Conv2d) -> Any:
    stride, kernel = module.stride[0], module.kernel_size[0]
    plain = module.forward
    same = (
        stride == 2
        if isinstance(module, SamePadConv)
        else stride == 1 and module.padding == (kernel // 2, kernel // 2)
    )
    fits = same and kernel in (3, 5) and module.in_channels % _LANES == 0

    def forward(image: Tensor) -> Tensor:
        even = image.shape[2] % stride == 0 and image.shape[3] % stride == 0
        if not (fits and even and image.dtype is torch.bfloat16):
            return plain(image)
        padding = (kernel - stride) // 2
        result: Tensor = _Depthwise.apply(image, module.weight, stride, padding)  # type: ignore[no-untyped-call]
        return result

    return forward


class _Normalisation(torch.autograd.Function):
    """Batch normalisation of bfloat16 (B, C, H, W) by the batch's own moments, cut to ``bounds``;
    returns the batch's mean and variance (C,) too."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        bounds: tuple[float, float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        image = _channels_last(image)
        rows = _Rows(image)
        sums, squares = rows.totals("column_sums", image) / rows.count
        mean, variance = sums, (squares - sums**2).clamp_min(0.0)
        inverse = (variance + eps).rsqrt()
        scale = weight.double() * inverse
        shift = bias.double() - mean * scale
        out = torch.empty_like(image)
        ends = rows.repeated(scale), rows.repeated(shift)
        _call("scale_and_clamp", image, *ends, *bounds, out, rows.rows, rows.width)
        ctx.save_for_backward(image, mean, inverse, scale, shift)
        ctx.bounds = bounds
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        image, mean, inverse, scale, shift = ctx.saved_tensors
        gradient = _channels_last(gradients[0])
        rows = _Rows(image)
        ends = rows.repeated(scale), rows.repeated(shift)
        passed, products = rows.totals("gradient_sums", image, gradient, *ends, *ctx.bounds)
        to_weight = (products - mean * passed) * inverse
        by_value = -scale * inverse * to_weight / rows.count
        constant = -scale * passed / rows.count - by_value * mean
        out = torch.empty_like(image)
        line = rows.repeated(by_value), rows.repeated(constant)
        _call(
            "normalised_gradient",
            *(image, gradient, *ends, *line, *ctx.bounds, out, rows.rows, rows.width),
        )
        return out, to_weight.float(), passed.float(), None, None


class _Rows:
    """An image (B, C, H, W) as rows of ``width`` values, several pixels to a row where C is small,
    so that the kernels' inner loops are long. ``count``: pixels; ``fit``: the kernels can take
    them."""

    def __init__(self, image: Tensor) -> None:
        self.channels = image.shape[1]
        self.count = image.numel() // self.channels
        together = 1
        while self.channels * together < _MIN_WIDTH and self.count % (2 * together) == 0:
            together *= 2
        self.together = together
        self.rows, self.width = self.count // together, self.channels * together
        self.fit = self.width % _LANES == 0

    def repeated(self, values: Tensor) -> Tensor:
        """One value a channel (C,) as float32 (width,)."""
        return values.float().repeat(self.together)

    def totals(self, kernel: str, *arguments: Tensor | float) -> Tensor:
        """Two sums a channel, float64 (2, C), of a kernel that sums over rows."""
        sums = torch.empty(2, self.together, self.channels, dtype=torch.float64)
        _call(kernel, *arguments, sums, self.rows, self.width)
        return sums.sum(dim=1)


def _normalise(module: nn.BatchNorm2d) -> Any:
    plain = module.forward
    bounds = _RELU6 if isinstance(module, NormReLU6) else _UNBOUNDED

    def forward(image: Tensor) -> Tensor:
        if not (module.training and image.dtype is torch.bfloat16 and _Rows(image).fit):
            return plain(image)
        result, mean, variance = _Normalisation.apply(  # type: ignore[no-untyped-call]
            image, module.weight, module.bias, module.eps, bounds
        )
        _update(module, mean, variance, image.numel() // image.shape[1])
        normalised: Tensor = result
        return normalised

    return forward


@torch.no_grad()
def _update(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """The running moments, as torch keeps them: the unbiased variance."""
    assert module.running_mean is not None
    assert module.running_var is not None
    assert module.num_batches_tracked is not None
    assert module.momentum is not None
    module.running_mean.lerp_(mean, module.momentum)
    module.running_var.lerp_(variance * (count / max(count - 1, 1)), module.momentum)
    module.num_batches_tracked.add_(1)
