"""Batches of random views: the same seed and step give the same batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.gate import Kind, View
from inference.training.gate.exposure import exposed
from inference.training.gate.placement import Picture, Source
from inference.training.gate.prepare import HANDS, Pictures
from inference.training.gate.views import (
    hand_view,
    incomplete_view,
    other_view,
    scrambled,
    two_hands_view,
)

_RSNA_SHARE = 0.84
_SCRAMBLED_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws views from one part of the pictures, without the groups in ``left_out``."""

    pictures: Pictures
    part: str
    side: int
    shares: dict[str, float]
    left_out: tuple[str, ...] = ()

    def batch(self, size: int, seed: tuple[int, ...]) -> tuple[NDArray[np.uint8], list[View]]:
        """``size`` views: uint8 (size, side, side), and what they show."""
        rng = np.random.default_rng(seed)
        kinds = rng.choice(list(self.shares), size, p=list(self.shares.values()))
        images, views = [], []
        for kind in kinds:
            picture, view = self._view(Kind(kind), rng)
            images.append(exposed(picture, rng))
            views.append(view)
        return np.stack(images), views

    def _view(self, kind: Kind, rng: np.random.Generator) -> tuple[Picture, View]:
        if kind is Kind.HAND:
            return hand_view(self._hand(rng), self.side, rng)
        if kind is Kind.TWO_HANDS:
            left = self._hand(rng)
            right = left if rng.random() < 0.5 else self._hand(rng)
            return two_hands_view(left, right, self.side, rng)
        if kind is Kind.INCOMPLETE:
            return incomplete_view(self._hand(rng), self.side, rng)
        if rng.random() < _SCRAMBLED_SHARE:
            return other_view(scrambled(self._hand(rng), rng), self.side, rng)
        return other_view(self._other(rng), self.side, rng)

    def _hand(self, rng: np.random.Generator) -> Source:
        """Mostly a radiograph; drawn hands as often as they need to be to pass."""
        drawn = self.pictures.chosen(self.part, HANDS[1:])
        real = self.pictures.chosen(self.part, HANDS[:1])
        use_real = len(real) and (not len(drawn) or rng.random() < _RSNA_SHARE)
        return self._source(int(rng.choice(real if use_real else drawn)), rng)

    def _other(self, rng: np.random.Generator) -> Source:
        """Every group as often as every other."""
        names = [*HANDS, *self.left_out]
        groups = sorted(set(self.pictures.groups.tolist()) - set(names))
        chosen = self.pictures.chosen(self.part, (str(rng.choice(groups)),))
        return self._source(int(rng.choice(chosen)), rng)

    def _source(self, index: int, rng: np.random.Generator) -> Source:
        """The picture, three times in four stretched to the grey levels inside its box."""
        picture = self.pictures.images[index].astype(np.float32) / 255
        box = self.pictures.boxes[index]
        if rng.random() < 0.75:
            left, top, right, bottom = (box * len(picture)).astype(int)
            low, high = np.percentile(picture[top:bottom, left:right], (2, 98))
            picture = np.clip((picture - low) / max(high - low, np.float32(0.02)), 0, 1)
        return Source(picture=picture.astype(np.float32, copy=False), box=box)
