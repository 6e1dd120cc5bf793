"""The gate's network: the first stages of EfficientNet-Lite0 and four heads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inference.network import BoneAgeNet

_BLOCKS = 11  # up to the last one with 112 channels
_CHANNELS = 112
_KINDS, _TURNS = 4, 4


class GateNet(nn.Module):
    """Network from a grey image to what it shows and how it lies.

    Input: uint8 or float 0..255, (B, 1, S, S), S a multiple of 16. Output: logits (B, 10): four
    kinds (in the order of :class:`inference.gate.Kind`), four quarter turns, inverted, thumb to
    the right.
    """

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        backbone = BoneAgeNet()
        self._conv_stem = backbone._conv_stem
        self._bn0 = backbone._bn0
        self._blocks = backbone._blocks[:_BLOCKS]
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(_CHANNELS, _KINDS + _TURNS + 2)

    def features(self, image: Tensor) -> Tensor:
        """Means of the last feature maps, (B, 112)."""
        x = image.to(self.heads.weight.dtype) / 127.5 - 1.0
        maps: Tensor = self._bn0(self._conv_stem(x))
        for block in self._blocks:
            maps = block(maps)
        return maps.mean(dim=(2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 10)."""
        logits: Tensor = self.heads(self.dropout(self.features(image)))
        return logits

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the stages from an ImageNet checkpoint of EfficientNet-Lite0.

        The three colour channels of the stem are summed into the grey one. Raises ``KeyError`` when
        a layer is missing.
        """
        own = self.state_dict()
        for name in own:
            if not name.startswith("heads."):
                value = weights[name]
                own[name] = value.sum(dim=1, keepdim=True) if name == "_conv_stem.weight" else value
        self.load_state_dict(own)


class GateDecision(nn.Module):
    """A trained network as the runtime sees it: the outputs of :data:`inference.gate.OUTPUTS`.

    ``shift`` is taken from the logits of one and two hands: the greatest logit is the decision.
    """

    shift: Tensor

    def __init__(self, network: GateNet, shift: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", torch.tensor([shift, shift, 0.0, 0.0]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, 4) and (B, 4), probabilities (B,) and (B,)."""
        logits = self.network(image)
        kind, turn = logits[:, :_KINDS] - self.shift, logits[:, _KINDS : _KINDS + _TURNS]
        inverted, thumb_right = torch.sigmoid(logits[:, _KINDS + _TURNS :]).unbind(dim=1)
        return kind, turn, inverted, thumb_right
