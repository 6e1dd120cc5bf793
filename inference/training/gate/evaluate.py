"""Figures of a trained gate: hands that it refuses or lays wrong, other images that it lets in."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.gate import Kind, View, to_gate_input
from inference.training.gate import prepare
from inference.training.gate.calibrate import Answers, answers_of, margin
from inference.training.gate.config import GateConfig
from inference.training.gate.network import GateDecision
from inference.training.gate.prepare import Pictures
from inference.training.gate.sampling import Sampler
from inference.training.gate.train import targets
from inference.training.prepare import stored_radiograph

LIES = list(product(range(4), (False, True), (False, True)))
"""Quarter turns, mirroring and inversion of an image."""
_VIEWS = 1000
_STORED = slice(None, None, len(LIES))


def lies(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """An image (S, S) in every lie of :data:`LIES`, first as it is."""
    views = []
    for turns, mirrored, inverted in LIES:
        view = np.rot90(image[:, ::-1] if mirrored else image, turns)
        views.append(np.ascontiguousarray(255 - view if inverted else view))
    return views


def wanted_lies() -> NDArray[np.float32]:
    """The answers for an upright left hand in every lie of :data:`LIES`, (16, 4) of
    :func:`inference.training.gate.train.targets`."""
    views = [
        View(
            kind=Kind.HAND,
            quarter_turns=-turns % 4,
            inverted=inverted,
            thumb_right=float(not mirrored),
        )
        for turns, mirrored, inverted in LIES
    ]
    return targets(views).numpy()


def of_hands(answers: Answers, wanted: NDArray[np.float32]) -> dict[str, Any]:
    """Shares of one or two hands refused, and of those laid right; ``wanted`` (N, 4). Two hands
    have a thumb on either side."""
    single = wanted[:, 0] == list(Kind).index(Kind.HAND)
    thumb_right = (answers[:, 9] > 0.5) == (wanted[:, 3] > 0.5)
    return {
        "views": len(answers),
        "refused": _share(margin(answers) <= 0),
        "kind_correct": _share(answers[:, :4].argmax(axis=1) == wanted[:, 0]),
        "quarter_turns_correct": _share(answers[:, 4:8].argmax(axis=1) == wanted[:, 1]),
        "polarity_correct": _share((answers[:, 8] > 0.5) == (wanted[:, 2] > 0.5)),
        "thumb_side_correct": _share(thumb_right[single]) if single.any() else None,
    }


def of_others(answers: Answers) -> dict[str, Any]:
    """Share of what is no assessable hand that is refused."""
    return {"views": len(answers), "refused": _share(margin(answers) <= 0)}


def _share(right: NDArray[np.bool_]) -> float:
    return round(float(right.mean()), 5)


def figures(
    decision: GateDecision,
    config: GateConfig,
    pictures: Pictures,
    data: Path,
    foreign: Mapping[str, NDArray[np.float32]],
) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32]]:
    """Figures, and the margins of all held-out hands and of all held-out others for the ROC.

    ``data`` holds ``rsna/rsna-299.zip``; ``foreign`` are images of other things by name.
    """
    names, hands = _validation_hands(pictures, data / "rsna" / "rsna-299.zip", config.side)
    found = answers_of(decision, np.stack([view for image in hands for view in lies(image)]))
    wanted = np.tile(wanted_lies(), (len(hands), 1))
    result: dict[str, Any] = {
        "hands_as_stored": of_hands(found[_STORED], wanted[_STORED]),
        "hands_in_16_lies": of_hands(found, wanted),
        "odd_as_stored": _odd(names, found[_STORED]),
    }
    for kind in (Kind.HAND, Kind.TWO_HANDS):
        answers, wanted = _random(decision, config, pictures, kind)
        result[f"random_views_{kind}"] = of_hands(answers, wanted)
    refused = {
        group: answers_of(decision, images)
        for group, images in _others(pictures, foreign, config.side)
    }
    refused["incomplete"], _ = _random(decision, config, pictures, Kind.INCOMPLETE)
    others = np.concatenate(list(refused.values()))
    result["negatives"] = {group: of_others(answers) for group, answers in refused.items()}
    result["negatives_all"] = of_others(others)
    return result, margin(found), margin(others)


def unseen(
    decision: GateDecision, pictures: Pictures, groups: tuple[str, ...], side: int
) -> dict[str, Any]:
    """Shares refused of groups that training left out."""
    result = {}
    for group in groups:
        chosen = pictures.images[pictures.chosen("validation", (group,))]
        images = _all_lies([image.astype(np.float32) for image in chosen], side)
        result[group] = of_others(answers_of(decision, images))
    return result


def _validation_hands(
    pictures: Pictures, archive: Path, side: int
) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """Names and network inputs of the validation radiographs, from the stored size as at
    runtime."""
    names = pictures.names[pictures.chosen("validation", prepare.HANDS[:1])].tolist()
    with zipfile.ZipFile(archive) as opened:
        stored = [stored_radiograph(opened, f"{name}.jpg") for name in names]
    return names, [to_gate_input(image, side) for image in stored]


def _others(
    pictures: Pictures, foreign: Mapping[str, NDArray[np.float32]], side: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Group and network inputs (N, side, side) of held-out images without a hand, in every lie."""
    for group in sorted(set(pictures.groups.tolist()) - set(prepare.HANDS)):
        chosen = pictures.images[pictures.chosen("validation", (group,))]
        yield group, _all_lies([image.astype(np.float32) for image in chosen], side)
    yield "pydicom", _all_lies(list(foreign.values()), side)


def _all_lies(images: list[NDArray[np.float32]], side: int) -> NDArray[np.uint8]:
    return np.stack([view for image in images for view in lies(to_gate_input(image, side))])


def _random(
    decision: GateDecision, config: GateConfig, pictures: Pictures, kind: Kind
) -> tuple[Answers, NDArray[np.float32]]:
    """Answers for random views of the validation pictures, and the right ones."""
    sampler = Sampler(pictures=pictures, part="validation", side=config.side, shares={kind: 1.0})
    images, views = sampler.batch(_VIEWS, (config.seed, 2 * 10**6))
    return answers_of(decision, images), targets(views).numpy()


def _odd(names: list[str], answers: Answers) -> dict[str, list[str]]:
    """Names of the stored radiographs that the gate refuses, turns, inverts or mirrors."""
    found = {
        "refused": margin(answers) <= 0,
        "two_hands": answers[:, :4].argmax(axis=1) == list(Kind).index(Kind.TWO_HANDS),
        "turned": answers[:, 4:8].argmax(axis=1) != 0,
        "inverted": answers[:, 8] > 0.5,
        "thumb_left": answers[:, 9] <= 0.5,
    }
    return {
        answer: [name for name, is_so in zip(names, said, strict=True) if is_so]
        for answer, said in found.items()
    }
