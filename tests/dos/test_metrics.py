import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from sklearn import metrics as sklearn_metrics

from mat2spec.dos.grid import PHDOS_GRID, SpectrumGrid
from mat2spec.dos.metrics import (
    SCALINGS,
    SHAPE_SCALINGS,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    scaled_to_max,
    scaled_to_sum,
    score,
    wasserstein_distances,
)

EQUAL = 1e-12
"""Relative difference of two float64 sums in another order."""


@pytest.fixture
def pair(splits) -> tuple[np.ndarray, np.ndarray]:
    """Real spectra, and the same with errors."""
    true = splits.train.spectra.double().numpy()
    return np.abs(true + 0.1 * np.random.default_rng(0).normal(size=true.shape)), true


def test_scores_are_those_of_scikit_learn(pair):
    predicted, true = pair
    assert r2_score(predicted, true) == pytest.approx(
        sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"), rel=EQUAL
    )
    assert mean_absolute_error(predicted, true) == pytest.approx(
        sklearn_metrics.mean_absolute_error(true, predicted), rel=EQUAL
    )
    assert mean_squared_error(predicted, true) == pytest.approx(
        sklearn_metrics.mean_squared_error(true, predicted), rel=EQUAL
    )


def test_bin_without_variance_has_no_weight_as_in_scikit_learn(pair):
    predicted, true = pair[0], pair[1].copy()
    true[:, [0, 7]] = 0.25
    assert (predicted[:, [0, 7]] != 0.25).all(), "it has errors that cannot be divided by a variance"
    assert r2_score(predicted, true) == pytest.approx(
        sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"), rel=EQUAL
    )


def test_labels_without_any_variance_are_scored_as_in_scikit_learn(pair):
    true = np.repeat(pair[1][:1], 2, axis=0)
    predicted = true.copy()
    predicted[1, :5] += 0.1
    expected = sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted")
    assert r2_score(predicted, true) == pytest.approx(expected, rel=EQUAL)
    assert r2_score(predicted, true) == pytest.approx(46 / 51)


def test_scores_of_a_single_material_are_finite(pair):
    assert np.isfinite(list(score(pair[0][:1], pair[1][:1], PHDOS_GRID).values())).all()


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
        wasserstein_distances(predicted, negative, PHDOS_GRID),
        wasserstein_distances(predicted, true, PHDOS_GRID),
        rtol=1e-9,
    )


def test_scaled_spectra_have_the_sum_of_the_reference(pair):
    predicted, true = pair
    scaled = scaled_to_sum(predicted, true)
    np.testing.assert_allclose(scaled.sum(axis=1), true.sum(axis=1), rtol=EQUAL)
    np.testing.assert_allclose(
        scaled / scaled.max(axis=1, keepdims=True), predicted / predicted.max(axis=1, keepdims=True), rtol=EQUAL
    )


def test_wasserstein_distance_of_nothing_is_that_of_a_flat_spectrum(pair):
    axis, true = PHDOS_GRID.points, pair[1]
    for nothing in (np.zeros_like(true), np.full_like(true, -1.0)):
        expected = [wasserstein_distance(axis, axis, np.ones(51), t) for t in true]
        np.testing.assert_allclose(wasserstein_distances(nothing, true, PHDOS_GRID), expected, rtol=1e-9)


def test_spectra_scaled_to_the_maximum_have_that_of_the_reference(pair):
    predicted, true = pair
    scaled = scaled_to_max(predicted, 3 * true)
    np.testing.assert_allclose(scaled.max(axis=1), 3 * true.max(axis=1), rtol=EQUAL)
    np.testing.assert_allclose(
        scaled / scaled.sum(axis=1, keepdims=True), predicted / predicted.sum(axis=1, keepdims=True), rtol=EQUAL
    )


def test_scalings_agree_on_predictions_proportional_to_labels(pair):
    sizes = np.random.default_rng(1).uniform(0.01, 100, (len(pair[1]), 1))
    for name in SHAPE_SCALINGS:
        np.testing.assert_allclose(SCALINGS[name](sizes * pair[1], pair[1]), pair[1], rtol=EQUAL)


@pytest.mark.parametrize("name", SCALINGS)
def test_scaling_cuts_off_negative_densities_first(pair, name):
    predicted, true = pair
    negative = np.where(predicted < 0.2, -5.0, predicted)
    np.testing.assert_array_equal(SCALINGS[name](negative, true), SCALINGS[name](negative.clip(0), true))


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("nothing", [0.0, -1.0])
def test_prediction_of_nothing_stays_zero_when_scaled(pair, name, nothing):
    predicted, true = pair[0].copy(), pair[1]
    predicted[3] = nothing
    scaled = SCALINGS[name](predicted, true)
    assert (scaled[3] == 0).all()
    assert np.isfinite(list(score(scaled, true, PHDOS_GRID).values())).all()


def test_score_of_the_truth_is_perfect(pair):
    assert score(pair[1], pair[1], PHDOS_GRID) == {"r2": 1.0, "mae": 0.0, "mse": 0.0, "wd": 0.0}


def test_predicting_the_mean_spectrum_explains_nothing(pair):
    true = pair[1]
    assert r2_score(np.broadcast_to(true.mean(axis=0), true.shape), true) == pytest.approx(0, abs=EQUAL)
