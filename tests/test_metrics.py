import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from sklearn import metrics as sklearn_metrics

from mat2spec.metrics import mean_absolute_error, mean_squared_error, r2_score, scaled_to_sum, score, wasserstein_distances
from mat2spec.spectrum import PHDOS_GRID, SpectrumGrid

EQUAL = 1e-12
"""Relative difference of two float64 sums in another order."""


@pytest.fixture
def pair(splits) -> tuple[np.ndarray, np.ndarray]:
    """Real spectra, and the same with errors."""
    true = splits.train.spectra.double().numpy()
    return np.abs(true + 0.1 * np.random.default_rng(0).normal(size=true.shape)), true


def test_scores_are_those_of_scikit_learn(pair):
    predicted, true = pair
    assert r2_score(predicted, true) == pytest.approx(sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"), rel=EQUAL)
    assert mean_absolute_error(predicted, true) == pytest.approx(sklearn_metrics.mean_absolute_error(true, predicted), rel=EQUAL)
    assert mean_squared_error(predicted, true) == pytest.approx(sklearn_metrics.mean_squared_error(true, predicted), rel=EQUAL)


def test_wasserstein_distance_is_that_of_scipy(pair):
    axis = PHDOS_GRID.points
    expected = [wasserstein_distance(axis, axis, p, t) for p, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(wasserstein_distances(*pair, PHDOS_GRID), expected, rtol=1e-9)


def test_wasserstein_distance_is_that_of_scipy_on_an_uneven_axis():
    axis = np.array([0.0, 1.0, 1.5, 4.0, 10.0])
    grid = SpectrumGrid.from_points("uneven", "eV", axis)
    predicted, true = np.random.default_rng(0).random((2, 3, 5))
    expected = [wasserstein_distance(axis, axis, p, t) for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(wasserstein_distances(predicted, true, grid), expected, rtol=1e-9)


def test_wasserstein_distance_of_shifted_peaks_is_the_shift():
    peaks = np.eye(51)
    np.testing.assert_allclose(wasserstein_distances(peaks[[3]], peaks[[10]], PHDOS_GRID), [7 * 20.0])


def test_wasserstein_distance_ignores_scale_and_negative_densities(pair):
    predicted, true = pair
    negative = np.where(true == 0, -1.0, 2 * true)
    np.testing.assert_allclose(
        wasserstein_distances(predicted, negative, PHDOS_GRID), wasserstein_distances(predicted, true, PHDOS_GRID), rtol=1e-9
    )


def test_scaled_spectra_have_the_sum_of_the_reference(pair):
    predicted, true = pair
    scaled = scaled_to_sum(predicted, true)
    np.testing.assert_allclose(scaled.sum(axis=1), true.sum(axis=1), rtol=EQUAL)
    np.testing.assert_allclose(scaled / scaled.max(axis=1, keepdims=True), predicted / predicted.max(axis=1, keepdims=True), rtol=EQUAL)


def test_score_of_the_truth_is_perfect(pair):
    assert score(pair[1], pair[1], PHDOS_GRID) == {"r2": 1.0, "mae": 0.0, "mse": 0.0, "wd": 0.0}


def test_predicting_the_mean_spectrum_explains_nothing(pair):
    true = pair[1]
    assert r2_score(np.broadcast_to(true.mean(axis=0), true.shape), true) == pytest.approx(0, abs=EQUAL)
