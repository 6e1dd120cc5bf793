"""Figures and calibration of a network, on numbers with a known answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.training import calibration
from inference.training.run_config import read_run_config

CONFIGS = sorted((Path(calibration.__file__).parent / "configs").glob("lite*.toml"))


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
    assert found["rmse_months"] == pytest.approx(np.sqrt((3 * 36 + 2 * 144 + 900) / 6), abs=1e-3)
    for name in ("mae_months", "rmse_months", "bias_months"):
        low, high = found[f"{name}_interval_95"]
        assert -12.0 <= low < found[name] < high <= 30.0
    assert figures(predicted, labelled, male, 7) == found


def test_a_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from inference.training.evaluate import figures

    rng = np.random.default_rng(3)
    labelled = rng.uniform(24, 220, 900).astype(np.float32)
    predicted = labelled + rng.normal(0, 9, 900).astype(np.float32)
    found = figures(predicted, labelled, (labelled > 100).astype(np.float32), 1)
    low, high = found["bias_months_interval_95"]
    assert high - low == pytest.approx(2 * 1.96 * 9 / 30, rel=0.1)
    low, high = found["mae_months_interval_95"]
    assert high - low == pytest.approx(2 * 1.96 * 9 * np.sqrt(1 - 2 / np.pi) / 30, rel=0.1)


def test_of_calibrations_that_cover_alike_the_one_that_says_more_is_taken() -> None:
    rng = np.random.default_rng(2)
    deviation = rng.uniform(3, 12, 4000).astype(np.float32)
    error = (rng.normal(size=4000) * deviation * 0.8).astype(np.float32)
    fitted = calibration.fit(error, deviation)
    assert fitted.sd_scale == pytest.approx(0.8, abs=0.05)
    assert fitted.sd_floor_months <= 3.0


@pytest.mark.parametrize(
    ("doubtful", "limit"), [(0, 8.0), (10, 8.0), (11, 20.0)], ids=["none", "1 %", "more"]
)
def test_at_most_one_percent_is_indeterminate(doubtful: int, limit: float) -> None:
    deviation = np.full(1000, 7.5, np.float32)
    deviation[:doubtful] = 19.2
    assert calibration.indeterminate_above(deviation) == limit


def test_the_sex_probe_finds_a_sex_that_shows_and_none_where_nothing_shows() -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    from inference.network import BoneAgeNet
    from inference.training.prepare import Radiographs
    from inference.training.sex_check import sex_check

    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    male = rng.integers(0, 2, 120).astype(np.float32)
    images = rng.integers(0, 100, (120, 64, 64)).astype(np.uint8)
    images[male == 1.0, :, ::4] = 255
    radiographs = Radiographs(
        image_ids=np.arange(120),
        images=images,
        male=male,
        months=rng.uniform(24, 220, 120).astype(np.float32),
        validation=np.arange(120) >= 80,
    )
    network, device = BoneAgeNet(drop_path=0.0, sex_features=4, hidden=8), torch.device("cpu")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(torch.from_numpy(images[:8, None]), torch.ones(8, 1))
    shown = sex_check(network, radiographs, 1, device)
    hidden = sex_check(network, replace(radiographs, male=rng.permutation(male)), 1, device)
    assert shown["accuracy"] >= 0.95
    assert min(shown["by_age_band_months"].values()) >= 0.8
    assert shown["training_images"] == 80
    assert hidden["accuracy"] < 0.8


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_run_configuration_can_be_read(path: Path) -> None:
    config = read_run_config(path)
    assert config.side % 32 == 0
    assert config.validation_images == 1000
