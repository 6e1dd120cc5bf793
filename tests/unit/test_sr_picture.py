"""The annotated picture: the hand framed where it is, every letter there, nothing cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_node.domain.assessment import Note
from dicom_node.domain.eligibility import Reason
from sr_templates import picture
from sr_templates.content import (
    AssessedContent,
    Box,
    Device,
    Heatmap,
    Model,
    NotAssessedContent,
    ReportContent,
)
from sr_templates.picture import SIZE
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
        "saliency": None,
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
        "reference_sd_months": ((12.0, 2.7), (96.0, 8.8), (180.0, 11.2)),
        "notes": (),
    }
    return AssessedContent(**{**values, **changes})


def annotate(pixels: Any, content: ReportContent) -> Image.Image:
    return picture.annotate(picture.radiograph(pixels, content), content)


def pixels_of(image: Image.Image) -> Any:
    return np.asarray(image)


def radiograph() -> Any:
    return np.full((960, 620), 90, dtype=np.uint8)


def test_the_hand_is_framed_where_it_is() -> None:
    image = annotate(radiograph(), assessed())
    assert image.size == SIZE
    assert image.mode == "RGB"
    left_half = pixels_of(image)[:, :680]
    rows, columns = np.nonzero((left_half == AMBER).all(axis=2))
    origin = np.array([40, 40])  # the radiograph of 620 x 960 stands 1:1 in the room for it
    box = np.array([rows.min(), columns.min(), rows.max(), columns.max()]) - [*origin, *origin]
    assert box.tolist() == [200, 100, 600, 300]


def drawn(image: Image.Image) -> Any:
    """The radiograph of 620 x 960 within the picture, RGB as signed numbers."""
    return pixels_of(image)[40:1000, 40:660].astype(int)


def heatmap(*levels: tuple[int, ...]) -> Heatmap:
    return Heatmap(box=Box(left=100, top=200, right=300, bottom=600), levels=levels)


def test_where_the_model_looked_most_is_warmest_and_nothing_else_changes() -> None:
    levels = ((0, 0, 0), (0, 0, 0), (0, 255, 0), (0, 0, 0))
    plain = drawn(annotate(radiograph(), assessed()))
    tinted = drawn(annotate(radiograph(), assessed(saliency=heatmap(*levels))))
    changed = np.abs(tinted - plain).sum(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() >= 200, rows.max() < 600) == (True, True)
    assert (columns.min() >= 100, columns.max() < 300) == (True, True)
    centre = np.unravel_index(changed.argmax(), changed.shape)
    assert abs(int(centre[0]) - 450) < 20  # third of four rows of levels
    assert abs(int(centre[1]) - 200) < 20
    red, _, blue = tinted[450, 200]
    assert red > 1.3 * blue


def test_the_look_of_the_model_rises_without_steps() -> None:
    tinted = drawn(annotate(radiograph(), assessed(saliency=heatmap((0, 0), (255, 255)))))
    steps = np.abs(np.diff(tinted[220:580, 200, 0]))
    assert steps.max() <= 3


def test_the_radiograph_stays_legible_where_the_model_looked_most() -> None:
    bones = radiograph()
    bones[:, ::2] = 190
    seen = drawn(annotate(bones, assessed(saliency=heatmap((255,)))))[300:500, 150:250].mean(axis=2)
    assert np.abs(np.diff(seen, axis=1)).mean() >= 0.4 * (190 - 90)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_scale_of_the_colours_stands_below_the_radiograph(language: str) -> None:
    legend = (slice(1000, 1045), slice(0, 660))
    plain = pixels_of(annotate(radiograph(), assessed(language=language)))
    content = assessed(language=language, saliency=heatmap((0, 255)))
    scaled = pixels_of(annotate(radiograph(), content))
    assert (plain[legend] == plain[0, 0]).all()
    assert (scaled[legend] != plain[0, 0]).any()
    assert (scaled[1045:] == plain[0, 0]).all()


def test_a_look_beyond_the_image_ends_at_its_edges() -> None:
    beyond = Heatmap(box=Box(left=-50, top=-50, right=900, bottom=900), levels=((255,),))
    image = pixels_of(annotate(radiograph(), assessed(saliency=beyond)))
    assert (image[:40, :680] == image[0, 0]).all()
    assert (image[40:1000, :40] == image[0, 0]).all()


@pytest.mark.parametrize("shape", [(299, 299), (2900, 2000), (300, 3000)])
def test_radiographs_of_any_size_stay_in_their_half(shape: tuple[int, int]) -> None:
    box = Box(left=0, top=0, right=shape[1], bottom=shape[0])
    image = pixels_of(annotate(np.full(shape, 200, dtype=np.uint8), assessed(hand_box=box)))
    assert (image[:40] == image[0, 0]).all()
    assert (image[-39:] == image[0, 0]).all()
    assert (image[:, 662:698] == image[0, 0]).all()


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
