"""Selection rules against the same rules written point by point, and the margin against the VB gap rule itself."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mat2spec.active_learning.acquisition import (
    BLOCK,
    feature_vectors,
    nearest_known,
    select_by_largest_cluster,
    select_lowest,
    squared_distances,
    vb_gap_margins,
)
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID, Spectra

SINGLE = 1e-3
"""Distances are differences of squares in single precision, so few digits are left for close points."""


@pytest.fixture(scope="module")
def electronic(bundled) -> Spectra:
    """Electronic spectra by DFT."""
    return np.array(pq.read_table(bundled.with_name("edos_gpaw.parquet"))["edos"].to_pylist(), np.float32)


def has_gap(spectra: Spectra, threshold: float) -> np.ndarray:
    return np.isfinite(vb_gaps(spectra, EDOS_GRID, ValenceBandRule(threshold=threshold))[:, 2])


def test_lowest_come_first_and_ties_keep_their_order():
    selection = select_lowest(np.array([3.0, 1.0, np.inf, 2.0, 1.0]), 3)
    assert selection.rows.tolist() == [1, 4, 3]
    np.testing.assert_array_equal(selection.scores, [1, 1, 2])


def test_distances_are_euclidean_and_the_nearest_is_found_across_blocks():
    random = np.random.default_rng(0)
    a = random.normal(size=(7, 5)).astype(np.float32)
    b = random.normal(size=(2 * BLOCK + 9, 5)).astype(np.float32)
    np.testing.assert_allclose(squared_distances(a, b), cdist(a, b) ** 2, atol=SINGLE)
    center, squares = nearest_known(a, b)
    np.testing.assert_array_equal(center, cdist(a, b).argmin(axis=1))
    np.testing.assert_allclose(squares, cdist(a, b).min(axis=1) ** 2, atol=SINGLE)


def clusters_by_hand(points: np.ndarray, known: np.ndarray, n: int, weights: np.ndarray) -> list[int]:
    """The same rule, written point by point."""
    centers = [*known]
    taken: list[int] = []
    for _ in range(n):
        members: dict[int, list[tuple[float, int]]] = {}
        for row in set(range(len(points))) - set(taken):
            squares = [((points[row] - center) ** 2).sum() for center in centers]
            members.setdefault(int(np.argmin(squares)), []).append((min(squares) * weights[row], row))
        largest = max(members.values(), key=lambda cluster: sum(gain for gain, _ in cluster))
        taken.append(max(largest)[1])
        centers.append(points[taken[-1]])
    return taken


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_selection_by_clusters_is_that_found_point_by_point(seed, known, weighted):
    random = np.random.default_rng(seed)
    cloud = random.normal(size=(30, 3)).astype(np.float32)
    weights = random.uniform(0.1, 2, 30 - known) if weighted else None
    selection = select_by_largest_cluster(cloud[known:], cloud[:known], 8, weights)
    assert selection.rows.tolist() == clusters_by_hand(
        cloud[known:], cloud[:known], 8, np.ones(30 - known) if weights is None else weights
    )
    for i, (row, score) in enumerate(zip(selection.rows, selection.scores, strict=True)):
        before = np.concatenate([cloud[:known], cloud[known:][selection.rows[:i]]])
        assert score == pytest.approx(cdist(cloud[known:][[row]], before).min(), abs=SINGLE)


def test_one_of_many_similar_points_is_selected_before_an_outlier():
    """The greedy core-set would select the outlier first."""
    known = np.array([[0, 0], [4, 0]], np.float32)
    crowd = np.array([6, 0]) + np.random.default_rng(0).normal(0, 0.05, (20, 2))
    points = np.concatenate([[[0.0, 3.0]], crowd]).astype(np.float32)
    assert select_by_largest_cluster(points, known, 1).rows[0] != 0
    assert select_by_largest_cluster(points, known, 2).rows[1] == 0
    certain = np.array([1.0, *np.full(20, 1e-3)])
    assert select_by_largest_cluster(points, known, 1, certain).rows[0] == 0


def test_point_nearest_to_the_mean_is_first_if_nothing_is_known():
    cloud = np.array([[9, 0], [0, 0], [0.4, 0], [-1, 0], [0, 1]], np.float32)
    selection = select_by_largest_cluster(cloud, cloud[:0], 2)
    assert selection.rows.tolist() == [2, 0]  # the mean is at 1.7
    assert np.isnan(selection.scores[0])


def test_copies_of_known_points_are_selected_last_and_once():
    cloud = np.array([[1, 0], [1, 0], [2, 0], [1, 0]], np.float32)
    assert select_by_largest_cluster(cloud, cloud[:1], 4).rows.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("ends", ["below", "beyond"])
def test_result_of_the_vb_gap_rule_changes_exactly_at_the_margin(electronic, ends):
    """Against the rule itself with other thresholds, on spectra by DFT."""
    margins = vb_gap_margins(electronic)
    results = has_gap(electronic, 1.0)
    assert 0 < np.isfinite(margins).sum() < len(margins)
    for spectrum, margin, result in zip(electronic, margins, results, strict=True):
        size = min(margin, 10.0)
        inside = [
            has_gap(spectrum[None], float(np.exp(sign * share * size)))[0] for sign in (-1, 1) for share in (0.5, 0.999)
        ]
        outside = [has_gap(spectrum[None], float(np.exp(sign * (size * 1.001 + 1e-6))))[0] for sign in (-1, 1)]
        if ends == "below":
            assert all(other == result for other in inside)
        elif np.isfinite(margin):
            assert any(other != result for other in outside)


def test_margin_applies_to_the_scale_of_the_spectrum_too(electronic):
    """A spectrum that is too high by a factor has the same result as a threshold that is too low by it."""
    margins = vb_gap_margins(electronic)
    finite = np.isfinite(margins)
    factors = np.exp(margins[finite] + 1e-4)[:, None].astype(np.float32)
    spectra = electronic[finite]
    higher, lower = (has_gap(scaled, 1.0) != has_gap(spectra, 1.0) for scaled in (spectra * factors, spectra / factors))
    assert (higher | lower).all()


def test_materials_with_the_same_elements_and_shape_are_one_point():
    shape = np.exp(-(((PHDOS_GRID.points - 300) / 50) ** 2)).astype(np.float32)
    spectra = np.stack([shape, 7 * shape, shape[::-1], np.zeros_like(shape)])
    points = feature_vectors([["Mg", "O"], ["Mg", "O"], ["Mg", "O"], ["Mg", "S"]], spectra)
    assert squared_distances(points[[0]], points)[0].tolist() == pytest.approx([0, 0, 2, 2], abs=0.01)
