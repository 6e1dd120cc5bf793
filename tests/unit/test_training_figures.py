"""Figures and calibration of a network, on numbers with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.training import calibration
from inference.training.run_config import read_run_config

CONFIGS = sorted((Path(calibration.__file__).parent / "configs").glob("*.toml"))


def test_an_overconfident_sd_is_widened_until_the_coverage_is_nominal() -> None:
    rng = np.random.default_rng(0)
    error = rng.normal(0, 9, 4000).astype(np.float32)
    deviation = np.full(4000, 6, np.float32)
    fitted = calibration.fit(error, deviation)
    assert fitted.apply(deviation)[0] == pytest.approx(9, abs=0.4)
    found = calibration.coverage(error, fitted.apply(deviation))
    assert found == pytest.approx(calibration.LEVELS, abs=0.02)


def test_a_floor_lifts_sds_that_are_too_small_for_some() -> None:
    rng = np.random.default_rng(1)
    deviation = np.where(np.arange(4000) % 2 == 0, 0.5, 10).astype(np.float32)
    error = (rng.normal(size=4000) * np.maximum(deviation, 6)).astype(np.float32)
    assert calibration.fit(error, deviation).sd_floor_months == pytest.approx(6, abs=1.0)


def test_coverage_counts_labels_inside_the_central_interval() -> None:
    error = np.array([0.0, 0.6, 1.2, 1.9, 3.0], dtype=np.float32)
    found = calibration.coverage(error, np.ones(5, np.float32))
    assert found.tolist() == [0.4, 0.6, 0.8]


def test_cross_fitting_measures_on_images_that_the_fit_did_not_see() -> None:
    error = np.where(np.arange(200) % 2 == 0, 10, 0.1).astype(np.float32)
    deviation = np.ones(200, np.float32)
    assert calibration.cross_fitted_coverage(error, deviation)[2] == pytest.approx(0.5)


def test_figures_are_those_of_the_errors() -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from inference.training.evaluate import figures

    labelled = np.array([24, 48, 100, 150, 180, 200], np.float32)
    predicted = labelled + np.array([6, -6, 12, -12, 30, -6], np.float32)
    male = np.array([0, 1, 0, 1, 0, 1], np.float32)
    found = figures(predicted, labelled, male, 7)
    assert found["images"] == 6
    assert found["mae_months"] == 12.0
    assert found["bias_months"] == 4.0
    assert found["within_12_months"] == pytest.approx(5 / 6, abs=1e-3)
    assert found["by_sex"]["F"]["mae_months"] == 16.0
    assert found["by_sex"]["M"]["mae_months"] == 8.0
    assert list(found["by_age_band_months"]) == ["0-59", "96-131", "132-167", "168-228"]
    low, high = found["mae_months_interval_95"]
    assert 6.0 <= low < 12.0 < high <= 30.0
    assert figures(predicted, labelled, male, 7) == found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_run_configuration_can_be_read(path: Path) -> None:
    config = read_run_config(path)
    assert config.side % 32 == 0
    assert config.validation_images == 1000
