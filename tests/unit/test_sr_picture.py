"""The annotated picture: the hand framed where it is, every letter there, nothing cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_node.domain.eligibility import Note, Reason
from sr_templates import picture
from sr_templates.content import AssessedContent, Box, Device, Model, NotAssessedContent
from sr_templates.picture import SIZE, annotate
from sr_templates.wording import LANGUAGES, wording

AMBER = (255, 179, 0)
COMMON: dict[str, Any] = {
    "device": Device(
        name="node-1", manufacturer="maker", model_name="boneage-node", software_version="0.1.0"
    ),
    "content_sha256": "ab" * 32,
    "language": "pt-BR",
    "reported_at": datetime(2024, 1, 2, tzinfo=UTC),
    "synthetic": False,
}


def assessed(**changes: Any) -> AssessedContent:
    values: dict[str, Any] = {
        **COMMON,
        "model": Model(name="boneage-test", version="1", sha256="cd" * 32),
        "hand_box": Box(left=100, top=200, right=300, bottom=600),
        "bone_age_months": 126.0,
        "sd_months": 6.2,
        "sex": "F",
        "laterality": "L",
        "view_position": "PA",
        "chronological_age_months": 150.0,
        "difference_months": -24.0,
        "population_sd_months": 14.3,
        "z_score": -1.68,
        "determination": "normal",
        "reference_id": "greulich-pyle-v-vi",
        "reference_title": "Greulich & Pyle 1959, V/VI",
        "notes": (),
    }
    return AssessedContent(**{**values, **changes})


def pixels_of(image: Image.Image) -> Any:
    return np.asarray(image)


def radiograph() -> Any:
    return np.full((900, 780), 90, dtype=np.uint8)


def test_the_hand_is_framed_where_it_is() -> None:
    image = annotate(radiograph(), assessed())
    assert image.size == SIZE
    assert image.mode == "RGB"
    left_half = pixels_of(image)[:, :800]
    rows, columns = np.nonzero((left_half == AMBER).all(axis=2))
    origin = np.array([50, 40])  # the radiograph of 780 x 900 stands 1:1 in the room for it
    box = np.array([rows.min(), columns.min(), rows.max(), columns.max()]) - [*origin, *origin]
    assert box.tolist() == [200, 100, 600, 300]


@pytest.mark.parametrize("shape", [(299, 299), (2900, 2000), (300, 3000)])
def test_radiographs_of_any_size_stay_in_their_half(shape: tuple[int, int]) -> None:
    box = Box(left=0, top=0, right=shape[1], bottom=shape[0])
    image = pixels_of(annotate(np.full(shape, 200, dtype=np.uint8), assessed(hand_box=box)))
    assert (image[:40] == image[0, 0]).all()
    assert (image[-39:] == image[0, 0]).all()
    assert (image[:, 822:858] == image[0, 0]).all()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_longest_report_fits_the_picture(language: str) -> None:
    content = assessed(
        language=language,
        synthetic=True,
        notes=tuple(note.value for note in Note),
        determination="outside_reference",
    )
    image = pixels_of(annotate(radiograph(), content))
    assert (image[-40:] == image[0, 0]).all()
    assert (image[:, -39:] == image[0, 0]).all()


@pytest.mark.parametrize("reason", Reason)
def test_an_image_that_was_not_assessed_has_no_frame(reason: Reason) -> None:
    image = pixels_of(annotate(radiograph(), NotAssessedContent(**COMMON, reason=reason.value)))
    assert not (image[:, :800] == AMBER).all(axis=2).any()
    assert (image[:, 860:] == AMBER).all(axis=2).any(), "the notice is missing"


def test_languages_and_figures_change_the_picture() -> None:
    portuguese = pixels_of(annotate(radiograph(), assessed()))
    english = pixels_of(annotate(radiograph(), assessed(language="en")))
    older = pixels_of(annotate(radiograph(), assessed(bone_age_months=140.0)))
    assert (portuguese != english).any()
    assert (portuguese != older).any()


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_font_has_every_letter_of_the_texts(language: str, bold: bool) -> None:
    font = picture._roboto(40, bold)
    missing = bytes(font.getmask("\uffff"))
    texts = wording(language).texts.values()
    letters = {c for section in texts for text in section.values() for c in text if c.strip()}
    assert [c for c in sorted(letters) if bytes(font.getmask(c)) == missing] == []


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), dtype=np.uint16), np.zeros((4, 4, 3), dtype=np.uint8)]
)
def test_other_arrays_are_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match="uint8"):
        annotate(pixels, assessed())
