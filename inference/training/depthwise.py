"""Depthwise convolutions whose gradients a CPU computes fast.

oneDNN's bfloat16 gradients are slow in two cases that make up half of a training step of
EfficientNet-Lite0: the weights' gradient of a 5 x 5 kernel (float32 takes a third of the time),
and the input's gradient at stride 2 (that of stride 1 on a gradient spread with zeros takes a
fifth). Both give the same gradients up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, image: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(
            image, weight, stride=stride, padding=padding, groups=image.shape[1]
        )

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        image, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        spread = gradient
        if stride > 1:
            rows, columns = (side + 2 * padding - weight.shape[2] + 1 for side in image.shape[2:])
            spread = torch.empty(
                (*gradient.shape[:2], rows, columns),
                dtype=gradient.dtype,
                memory_format=torch.channels_last,
            ).zero_()
            spread[:, :, ::stride, ::stride] = gradient
        to_image = _gradient(spread, image, weight, 1, padding, of_image=True)
        if weight.shape[2] > 3:
            image, weight, gradient = image.float(), weight.float(), gradient.float()
        to_weight = _gradient(gradient, image, weight, stride, padding, of_image=False)
        return to_image, to_weight, None, None


def _gradient(
    gradient: Tensor, image: Tensor, weight: Tensor, stride: int, padding: int, *, of_image: bool
) -> Tensor:
    to_image, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        image,
        weight,
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        False,
        [0, 0],
        image.shape[1],
        [of_image, not of_image, False],
    )
    result: Tensor = to_image if of_image else to_weight
    return result


def speed_up_gradients(network: nn.Module) -> None:
    """Let every depthwise convolution of a network on the CPU use the fast gradients."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module._conv_forward = _forward(module)  # type: ignore[method-assign]


def _forward(module: nn.Conv2d) -> Any:
    stride, padding = module.stride[0], int(module.padding[0])

    def forward(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        del bias
        result: Tensor = _Depthwise.apply(image, weight, stride, padding)  # type: ignore[no-untyped-call]
        return result

    return forward
